"""The worker that holds the source model: it exports artifacts, and answers rows in float32.

argument     folder, name, revision of the model; prompt, limits, generation, calibration rows
             and shortlist
line in      {"export": "onnx", "quantization": "int8", "shortlist": false, "output": path}
line out     {"size": bytes, "seconds": …, "parity": {…}} or {"refused": reason}
line in      {"texts": […], "fields": […]}
line out     {"answers": […]}: greedy, float32, by transformers
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bench.compiler.worker import Answer, Values, run_program
from edge.export.conditioning.calibration import CalibrationRequest
from edge.export.exported import Exported
from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.reference import TorchReference
from edge.export.shortlist import ShortlistRequest
from edge.export.source import SourceModel
from edge.runtime.errors import ParityError, UsageError
from edge.runtime.inference.batching import batches_by_length
from edge.runtime.rows import Columns
from edge.runtime.text.tokenization import cut_ids

# Generation defaults of every exported artifact.
GREEDY = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "do_sample": False,
    "prompt_lookup_num_tokens": 0,
}
_BATCH = 32


class ExactPublisher(Publisher):
    """Exports the requested quantization or fails: other quantizations are separate candidates."""

    def publish(self, target: Target, output: str | Path, *, force: bool = False) -> Exported:
        """As `Publisher.publish`, without falling back to a higher-precision quantization."""
        self.check_target(target)
        return self._publish(self.exporter(target), target, output, force=force)


class ExportWorker:
    """Answers the lines; the source model is read once for all exports.

    Args:
        argument: the program's argument.
    """

    def __init__(self, argument: Mapping[str, Any]) -> None:
        self._source = SourceModel(
            argument["folder"], name=argument["name"], revision=argument["revision"]
        )
        self._argument = argument
        self._publishers: dict[bool, ExactPublisher] = {}
        plain = self.publisher(shortlist=False)
        self._reference = TorchReference(self._source, pieces=plain.check.tokenizer.pieces)

    def publisher(self, *, shortlist: bool) -> ExactPublisher:
        """The publisher of artifacts with or without a vocabulary shortlist."""
        if shortlist not in self._publishers:
            self._publishers[shortlist] = ExactPublisher(
                self._source, export_options(self._argument, shortlist=shortlist)
            )
        return self._publishers[shortlist]

    def answer(self, request: Mapping[str, Any]) -> Values:
        """The answer to a line."""
        if "export" in request:
            return self._export(request)
        return {"answers": self._answers(request["texts"], request["fields"])}

    def _export(self, request: Mapping[str, Any]) -> Values:
        started = time.perf_counter()
        target = Target(request["export"], request["quantization"])
        try:
            publisher = self.publisher(shortlist=request["shortlist"])
            exported = publisher.publish(target, request["output"], force=True)
        except (ParityError, UsageError) as error:
            return {"refused": str(error)}
        return {
            "size": exported.manifest.size,
            "seconds": time.perf_counter() - started,
            "parity": exported.manifest.parity,
            "shortlist_size": exported.manifest.shortlist.get("size"),
        }

    def _answers(self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> list[str]:
        publisher = self.publisher(shortlist=False)
        tokenizer, limit = publisher.check.tokenizer, publisher.limits.max_input_tokens
        prompted = [publisher.prompt.apply(t, f) for t, f in zip(texts, fields, strict=True)]
        rows = [cut_ids(row, limit, tokenizer.eos) for row in tokenizer.encode(prompted)]
        answers: dict[int, tuple[int, ...]] = {}
        for indices in batches_by_length([len(row) for row in rows], _BATCH):
            found = self._reference.generate([rows[i] for i in indices], publisher.generation)
            answers |= {i: one[0].token_ids for i, one in zip(indices, found, strict=True)}
        return tokenizer.decode([answers[index] for index in range(len(rows))])


def export_options(argument: Mapping[str, Any], *, shortlist: bool) -> ExportOptions:
    """The export options that the program's argument asks for."""
    request = None
    columns = Columns(argument["input_column"], argument["target_column"])
    if shortlist:
        request = ShortlistRequest(Path(argument["shortlist"]), columns=columns)
    return ExportOptions(
        prompt=argument["prompt"],
        max_input_tokens=argument["max_input_tokens"],
        generation={**argument["generation"], **GREEDY},
        calibrate=CalibrationRequest(Path(argument["calibrate"]), columns)
        if argument["calibrate"]
        else None,
        compare_answers=False,  # the search compares them on the user's rows
        shortlist=request,
    )


def _start(argument: Values) -> tuple[Values, Answer]:
    worker = ExportWorker(argument)
    publisher = worker.publisher(shortlist=False)
    return {
        "plain_greedy": publisher.generation.is_plain_greedy,
        "generation": dataclasses.asdict(publisher.generation),
        "prompt": publisher.prompt.template,
    }, worker.answer


if __name__ == "__main__":
    run_program(_start, vital=True)
