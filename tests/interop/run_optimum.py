"""Optimum's answers with a folder in the hub layout; run by the Python of Optimum's environment.

Usage: run_optimum.py CALLS > RESULTS (JSON). CALLS: {"hub": folder, "model": folder or null,
"texts": [...], "options": [{...}, …]}. RESULTS: {"ids": …, "torch": …, "merged": …, "pair": …,
"moved": …}, each of the last four with a list of token rows for each of the options. "moved" is the
folder with its graphs in onnx/, where transformers.js looks for them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from optimum.onnxruntime import ORTModelForSeq2SeqLM
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()


def main() -> None:
    call = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    hub = Path(call["hub"])
    tokenizer = AutoTokenizer.from_pretrained(hub)
    batch = tokenizer(call["texts"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)

    def answers(model: Any) -> list[list[list[int]]]:
        return [model.generate(**batch, **options).tolist() for options in call["options"]]

    merged = ORTModelForSeq2SeqLM.from_pretrained(hub)
    assert merged.decoder.is_merged
    pair = ORTModelForSeq2SeqLM.from_pretrained(hub, use_merged=False)
    assert pair.decoder_with_past is not None
    assert not pair.decoder.is_merged
    results = {
        "ids": tokenizer(call["texts"])["input_ids"],
        "merged": answers(merged),
        "pair": answers(pair),
    }
    with tempfile.TemporaryDirectory() as scratch:
        moved = Path(scratch) / "model"
        shutil.copytree(hub, moved)
        (moved / "onnx").mkdir()
        for path in moved.glob("*.onnx*"):
            path.rename(moved / "onnx" / path.name)
        results["moved"] = answers(ORTModelForSeq2SeqLM.from_pretrained(moved))
    if call["model"]:
        results["torch"] = answers(AutoModelForSeq2SeqLM.from_pretrained(call["model"]).eval())
    print(json.dumps(results))


main()
