"""Models and texts for the interoperability tests."""

from __future__ import annotations

from typing import Any

# Texts of different lengths; the models have random weights.
TEXTS = (
    "what is the bridge of the old town near number 7 in Berlin",
    "who made a river",
    "list all some houses by Anna from Rome with stones of the old town near number 31 in Berlin",
)
# flan-t5-small's width and heads, 6 × 64 in 512, with few layers; and a tiny tied model. As
# transformers 4 writes them, since Optimum's environment has version 4.
SHAPES: dict[str, dict[str, Any]] = {
    "flan-t5-small": {
        "d_model": 512,
        "d_kv": 64,
        "num_heads": 6,
        "d_ff": 1024,
        "tied": False,
        "written_by": 4,
    },
    "tiny": {"num_decoder_layers": 1, "written_by": 4},
}
