"""The inputs and outputs of Optimum's export; run by the Python of Optimum's environment.

Usage: names_of_optimum.py MODEL FOLDER > NAMES: {file: [[inputs], [outputs]]}, each an input or
output as [name, type].
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import onnxruntime as ort
from optimum.exporters.onnx import main_export


def main() -> None:
    model, folder = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        main_export(model, folder, task="text2text-generation-with-past", do_validation=False)
    names = {}
    for path in sorted(Path(folder).glob("*.onnx")):
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        sides = (session.get_inputs(), session.get_outputs())
        names[path.name] = [[[one.name, one.type] for one in side] for side in sides]
    print(json.dumps(names))


main()
