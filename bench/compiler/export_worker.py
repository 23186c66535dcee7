"""The program that holds the source model: it exports, and answers rows as the source does.

argument     folder, name, revision of the model; prompt, limits, generation and shortlist
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
from edge.export.publish import Exported, ExportOptions, Publisher, Target
from edge.export.reference import TorchReference
from edge.export.shortlist import ShortlistRequest
from edge.export.source import SourceModel
from edge.runtime.errors import ParityError, UsageError
from edge.runtime.rows import Columns

# What is measured is what the artifact does when nothing else is asked for.
GREEDY = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "do_sample": False,
    "prompt_lookup_num_tokens": 0,
}
_BATCH = 32


class AsAsked(Publisher):
    """Makes the quantization that is asked for, or nothing: the finer ones are candidates, too."""

    def publish(self, target: Target, output: str | Path, *, force: bool = False) -> Exported:
        self.check_target(target)
        return self._publish(self.exporter(target), target, output, force=force)


class Exporting:
    """Answers the lines; what the publishers share of the source is read once."""

    def __init__(self, argument: Mapping[str, Any]) -> None:
        self._source = SourceModel(
            argument["folder"], name=argument["name"], revision=argument["revision"]
        )
        self._argument = argument
        self._publishers: dict[bool, AsAsked] = {}
        plain = self.publisher(shortlist=False)
        self._reference = TorchReference(self._source, pieces=plain.check.tokenizer.pieces)

    def publisher(self, *, shortlist: bool) -> AsAsked:
        if shortlist not in self._publishers:
            self._publishers[shortlist] = AsAsked(
                self._source, export_options(self._argument, shortlist=shortlist)
            )
        return self._publishers[shortlist]

    def answer(self, asked: Mapping[str, Any]) -> Values:
        if "export" in asked:
            return self._export(asked)
        return {"answers": self._answers(asked["texts"], asked["fields"])}

    def _export(self, asked: Mapping[str, Any]) -> Values:
        started = time.perf_counter()
        target = Target(asked["export"], asked["quantization"])
        try:
            publisher = self.publisher(shortlist=asked["shortlist"])
            exported = publisher.publish(target, asked["output"], force=True)
        except (ParityError, UsageError) as error:
            return {"refused": str(error)}
        return {
            "size": exported.manifest.size,
            "seconds": time.perf_counter() - started,
            "parity": exported.manifest.parity,
            "listed": exported.manifest.shortlist.get("size"),
        }

    def _answers(self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> list[str]:
        publisher = self.publisher(shortlist=False)
        tokenizer, limit = publisher.check.tokenizer, publisher.limits.max_input_tokens
        prompted = [publisher.prompt.apply(t, f) for t, f in zip(texts, fields, strict=True)]
        rows = tokenizer.encode(prompted)
        rows = [row if len(row) <= limit else [*row[: limit - 1], tokenizer.eos] for row in rows]
        answers: dict[int, tuple[int, ...]] = {}
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # little padding
        for first in range(0, len(order), _BATCH):
            places = order[first : first + _BATCH]
            found = self._reference.generate([rows[p] for p in places], publisher.generation)
            answers |= {p: one[0].token_ids for p, one in zip(places, found, strict=True)}
        return tokenizer.decode([answers[place] for place in range(len(rows))])


def export_options(argument: Mapping[str, Any], *, shortlist: bool) -> ExportOptions:
    """The exporters' options, from the argument's values."""
    request = None
    if shortlist:
        columns = Columns(argument["input_column"], argument["target_column"])
        request = ShortlistRequest(Path(argument["shortlist"]), columns=columns)
    return ExportOptions(
        prompt=argument["prompt"],
        max_input_tokens=argument["max_input_tokens"],
        generation={**argument["generation"], **GREEDY},
        shortlist=request,
    )


def _start(argument: Values) -> tuple[Values, Answer]:
    exporting = Exporting(argument)
    publisher = exporting.publisher(shortlist=False)
    return {
        "plain_greedy": publisher.generation.is_plain_greedy,
        "generation": dataclasses.asdict(publisher.generation),
        "prompt": publisher.prompt.template,
    }, exporting.answer


if __name__ == "__main__":
    run_program(_start, vital=True)
