"""A shape's model with a random draft head, for its cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.bench.engines.cache import Prepared
from edge.bench.speculation.replay import EDITED, GRAPH, search_feeds
from edge.export.draft_head import DRAFT_HEAD_NAME, KERNEL, DraftHead
from edge.export.options import tokenizer_sha256
from edge.export.source import SourceModel
from edge.runtime.platform.atomic import new_folder

_HIDDEN, _PHRASES = 128, 64


def with_random_head(prepared: Prepared) -> Prepared:
    """The same model beside a draft head, in a folder inside the other's home."""
    home = prepared.home / "drafted"
    model = home / "model"
    if not model.is_dir():
        home.mkdir(exist_ok=True)
        with new_folder(model, force=False) as staging:
            for file in prepared.model.iterdir():
                os.link(file, staging / file.name)
            _random_head(SourceModel.open(prepared.model)).save(staging / DRAFT_HEAD_NAME)
    return Prepared(home, model)


def _random_head(source: SourceModel) -> DraftHead:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.02, shape).astype(np.float32)

    columns = 2 + _PHRASES
    return DraftHead(
        draw(_HIDDEN, source.architecture.d_model, KERNEL),
        draw(_HIDDEN),
        draw(_HIDDEN, _HIDDEN, KERNEL),
        draw(_HIDDEN),
        draw(columns, _HIDDEN, 1),
        draw(columns),
        phrases=tuple((10 + place,) for place in range(_PHRASES)),
        weights_sha256=source.weights_sha256,
        tokenizer_sha256=tokenizer_sha256(source),
        record={},
    )


def edited_inputs(
    artifact: Path, sources: Sequence[Sequence[int]], threads: int
) -> list[tuple[int, ...]] | None:
    """The edited input of each source; None if the artifact has no draft head."""
    from edge.runtime.engines.onnx.engine import open_session

    session = open_session(artifact / GRAPH, threads)
    if EDITED not in [output.name for output in session.get_outputs()]:
        return None
    edited = []
    for source in sources:
        feeds = search_feeds(source, longest=1, shortest=0) | {"draft_tokens": np.array(0)}
        edited.append(tuple(session.run([EDITED], feeds)[0].tolist()))
    return edited
