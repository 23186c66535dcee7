"""Vocabulary shortlists: the ids that a search may choose, and their cost in accuracy.

Each decoder step reads all of lm_head, a third of a small model's decoder, although a task uses
only a few thousand tokens. A shortlist keeps the ids of the training targets and the most frequent
ids of the vocabulary; those of each input are added at run time (see `edge.export.onnx.lm_head`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.export.parity import first_difference
from edge.export.tolerance import Tolerance
from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError, DataError, ParityError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from edge.runtime.platform.json_file import read_json
from edge.runtime.rows import (
    Columns,
    Row,
    data_sha256,
    holds_splits,
    read_rows,
    split_file,
    train_file,
)
from edge.runtime.text.tokenization import Tokenizer

SHORTLIST_NAME = "shortlist.json"
_MAX_BYTES = 16 << 20
# Beside the ids of the targets, as a safety net: one in 8 ids of the vocabulary, at most 4,000.
_FREQUENT_DIVISOR, _MAX_FREQUENT = 8, 4000
# A longer list saves too little to be worth a separate artifact.
_MAX_LIST_RATIO = 0.9
_HELD_OUT_RATIO = 0.1
_MAX_HELD_OUT_ROWS = 500
# Plain greedy search, independent of the artifact's defaults.
_GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "do_sample": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "prompt_lookup_num_tokens": 0,
}


@dataclass(frozen=True)
class ShortlistRequest:
    """How to make a shortlist.

    Attributes:
        data: a JSON-lines file, or a folder with train.jsonl and dev.jsonl. The targets of the
            training rows make the list; the dev rows, or a tenth of the file, measure its cost.
        frequent: how many of the most frequent ids of the vocabulary to include; None for one in
            eight, at most 4,000.
        columns: the names of the input and target columns.
    """

    data: Path
    frequent: int | None = None
    columns: Columns = field(default_factory=Columns)


class Shortlist:
    """A shortlist, and the held-out rows that measure its cost in accuracy.

    Attributes:
        ids: the ids in ascending order; eos is among them.
    """

    def __init__(
        self, request: ShortlistRequest, tokenizer: Tokenizer, ends: Sequence[int] = ()
    ) -> None:
        """Read the data and make the list; the ids `ends`, which end an answer, are in it.

        Raises:
            DataError: the data is missing, empty, without targets, or too small to hold rows out.
            UsageError: the list would hold nearly the whole vocabulary.
            MissingExtraError: rouge-score is not installed.
        """
        from edge.train.metrics import rouge_l

        rouge_l(["fail"], ["early"])  # a missing library must not show after the export
        self._train_file = train_file(request.data)
        self._dev_file = split_file(request.data, "dev") if holds_splits(request.data) else None
        rows, held_out = self._rows(request)
        self._held_out = held_out[:: -(-len(held_out) // _MAX_HELD_OUT_ROWS)]
        pieces = tokenizer.pieces
        frequent = request.frequent
        if frequent is None:
            frequent = min(_MAX_FREQUENT, pieces // _FREQUENT_DIVISOR)
        targets = {t for ids in tokenizer.encode([r.target or "" for r in rows]) for t in ids}
        # A Unigram vocabulary is sorted by score, so its first ids are the most frequent. Frequent
        # ids of the data's inputs are not needed: those of the input are always added.
        self.ids = sorted(targets | set(range(min(frequent, pieces))) | {tokenizer.eos, *ends})
        if len(self.ids) > _MAX_LIST_RATIO * pieces:
            raise UsageError(
                f"--shortlist: the list would hold {len(self.ids):,} of {pieces:,} ids, which saves"
                " next to nothing. Leave --shortlist out, or lower --shortlist-frequent"
                f" ({frequent:,}; the targets alone have {len(targets):,} ids)"
            )
        held_out_file = self._dev_file or self._train_file
        self._description: dict[str, Any] = {
            "size": len(self.ids),
            "pieces": pieces,
            "in_targets": len(targets),
            "frequent": frequent,
            "data": _name(self._train_file, request),
            "data_sha256": data_sha256(self._train_file),
            "rows": len(rows),
            "held_out_data": _name(held_out_file, request),
            "held_out_sha256": data_sha256(held_out_file),
        }

    def _rows(self, request: ShortlistRequest) -> tuple[list[Row], list[Row]]:
        """The rows that make the list, and the held-out rows; no row is in both."""
        from edge.train.data import split_by_hash

        rows = read_rows(self._train_file, request.columns)
        if self._dev_file is not None:
            return rows, read_rows(self._dev_file, request.columns)
        try:
            return split_by_hash(rows, _HELD_OUT_RATIO, self._train_file)
        except DataError:
            raise DataError(
                f"{len(rows)} rows are too few to hold out a tenth for measuring the shortlist."
                " Give more rows, or a folder with train.jsonl and dev.jsonl",
                path=self._train_file,
            ) from None

    def write(self, folder: Path) -> None:
        """Write the ids to `folder` as shortlist.json."""
        (folder / SHORTLIST_NAME).write_text(json.dumps(self.ids) + "\n", encoding="utf-8")

    def answers(self, model: Model) -> list[Generation]:
        """The model's greedy answers to the held-out rows."""
        return model.generate(
            [row.input for row in self._held_out],
            fields=[row.fields for row in self._held_out],
            on_long="truncate",
            **_GREEDY,
        )

    def compare(
        self, model: Model, before: Sequence[Generation], tolerance: Tolerance
    ) -> dict[str, Any]:
        """Measure what the shortlist changes.

        Args:
            model: the artifact with the shortlist.
            before: the answers of the artifact with the full head.
            tolerance: decides which tokens count as equally good.

        Returns:
            The manifest's `shortlist` section: a description of the list, and the accuracy before
            and after.

        Raises:
            ParityError: an answer changed although the list holds all of its tokens.
        """
        after = self.answers(model)
        differing = [
            row
            for row, (one, other) in enumerate(zip(before, after, strict=True))
            if one.token_ids != other.token_ids
        ]
        self._check(model, before, after, differing, tolerance)
        return {
            **self._description,
            "held_out_rows": len(self._held_out),
            "greedy_identical": len(before) - len(differing),
            "before": self._accuracy(before),
            "after": self._accuracy(after),
        }

    def _accuracy(self, answers: Sequence[Generation]) -> dict[str, float]:
        from edge.train.metrics import exact_match, rouge_l

        texts = [answer.text for answer in answers]
        references = [row.target or "" for row in self._held_out]
        return {
            "exact_match": round(exact_match(texts, references), 6),
            "rouge_l": round(rouge_l(texts, references), 6),
        }

    def _check(
        self,
        model: Model,
        before: Sequence[Generation],
        after: Sequence[Generation],
        differing: Sequence[int],
        tolerance: Tolerance,
    ) -> None:
        """Check that an answer changed only where the shortlist lacks the token, or at a tie.

        Ties may fall differently because the columns of the input's ids are computed from
        activations that are not quantized.
        """
        rows = [self._held_out[row] for row in differing]
        sources, _ = model.encode(
            [row.input for row in rows], fields=[row.fields for row in rows], on_long="truncate"
        )
        for row, source in zip(differing, sources, strict=True):
            one, other = ([*a[row].token_ids, model.tokenizer.eos] for a in (before, after))
            position, one, other = first_difference(one, other)
            if one[position] not in {*self.ids, *source}:
                continue
            scores = model.score_tokens([source] * 2, [one, other])
            if not abs(float(scores[0][position] - scores[1][position])) <= tolerance.tie:
                raise ParityError(
                    f"the shortlist changes the answer to {self._held_out[row].input!r} although it"
                    " contains all tokens of the full head's answer. This is a bug: please report"
                    " the model"
                )


def read_shortlist(artifact: Artifact) -> list[int] | None:
    """The ids of an artifact's shortlist, or None if it has none.

    Raises:
        ArtifactError: shortlist.json is malformed.
    """
    if not artifact.manifest.shortlist:
        return None
    path = artifact.path(SHORTLIST_NAME)
    try:
        ids = read_json(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: can't be read ({error})") from None
    pieces = artifact.manifest.tokenizer.pieces
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < pieces for i in ids):
        raise ArtifactError(f"{path}: must be a list of ids from 0 to {pieces - 1}")
    return ids


def shortlist_line(report: Mapping[str, Any]) -> str:
    """A one-line summary of a manifest's `shortlist` section."""
    before, after = report["before"], report["after"]
    return (
        f"{report['size']:,} of {report['pieces']:,} ids (targets of {report['data']}); on"
        f" {report['held_out_rows']} held-out rows: {report['greedy_identical']} greedy answers as"
        f" with the full head,"
        f" exact match {before['exact_match']:.1%} → {after['exact_match']:.1%},"
        f" ROUGE-L {before['rouge_l']:.4f} → {after['rouge_l']:.4f}"
    )


def _name(file: Path, request: ShortlistRequest) -> str:
    """The name of a data file for the manifest, which holds no paths of this machine."""
    return f"{request.data.resolve().name}/{file.name}" if request.data.is_dir() else file.name
