"""Vocabulary shortlists: which rows of lm_head a search reads, and what that costs in accuracy.

A step of the decoder reads all of lm_head, a third of a small model's decoder, to find one of a few
thousand tokens that its task ever needs. A shortlist keeps the ids of the training targets and the
vocabulary's most frequent ones; the ids of each input come in at run time (edge.export.onnx.lm_head).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.export.base import Tolerance
from edge.export.parity import where_they_part
from edge.runtime.artifact import Artifact, sha256_of
from edge.runtime.errors import ArtifactError, DataError, ParityError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.model import Model
from edge.runtime.platform.json_file import read_json
from edge.runtime.rows import Columns, Row, read_rows, split_file
from edge.runtime.text.tokenization import Tokenizer

SHORTLIST_NAME = "shortlist.json"
_MAX_BYTES = 16 << 20
# As a safety net below the targets' own ids: this share of the vocabulary, and at most so many.
_FREQUENT_SHARE, _MOST_FREQUENT = 8, 4000
# A list this long saves too little to be worth an artifact of its own.
_LONGEST_SHARE = 0.9
_HELD_OUT_SHARE = 0.1
_JUDGED_ROWS = 500
# Plain greedy search, whatever the artifact's defaults are.
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
    """What `--shortlist` asks for. `data` is a JSON-lines file, or a folder with train and dev
    files; `frequent` None takes an eighth of the vocabulary, at most 4,000."""

    data: Path
    frequent: int | None = None
    columns: Columns = field(default_factory=Columns)


class Shortlist:
    """The shortlist ids, and the held-out rows that judge what they cost.

    Attributes:
        ids: shortlist ids, ascending; eos is among them.
    """

    def __init__(self, request: ShortlistRequest, tokenizer: Tokenizer) -> None:
        """Read the data and make the list.

        Raises:
            DataError: the data is missing, empty, without targets, or too small to hold rows out.
            UsageError: the list would hold nearly the whole vocabulary.
            MissingExtraError: rouge-score is not installed.
        """
        from edge.train.metrics import rouge_l

        rouge_l(["known"], ["before"])  # that anything takes time
        self._train_file, self._dev_file = _files(request.data)
        rows, judged = self._rows(request)
        self._judged = judged[:: -(-len(judged) // _JUDGED_ROWS)]
        pieces = tokenizer.pieces
        frequent = request.frequent
        if frequent is None:
            frequent = min(_MOST_FREQUENT, pieces // _FREQUENT_SHARE)
        targets = {t for ids in tokenizer.encode([r.target or "" for r in rows]) for t in ids}
        # A Unigram vocabulary is in order of its scores: its first ids are the most frequent. What
        # is frequent in the data's inputs needs no place: the input's own ids always have one.
        self.ids = sorted(targets | set(range(min(frequent, pieces))) | {tokenizer.eos})
        if len(self.ids) > _LONGEST_SHARE * pieces:
            raise UsageError(
                f"--shortlist: the list would hold {len(self.ids):,} of {pieces:,} ids, so there is"
                " nothing left to gain; leave it out, or lower --shortlist-frequent"
                f" ({frequent:,}; the targets alone have {len(targets):,})"
            )
        judge = self._dev_file or self._train_file
        self._facts: dict[str, Any] = {
            "size": len(self.ids),
            "pieces": pieces,
            "in_targets": len(targets),
            "frequent": frequent,
            "data": _name(self._train_file, request),
            "data_sha256": sha256_of(self._train_file),
            "rows": len(rows),
            "judged_on": _name(judge, request),
            "judged_sha256": sha256_of(judge),
        }

    def _rows(self, request: ShortlistRequest) -> tuple[list[Row], list[Row]]:
        """Rows that make the list and rows that judge it; no row does both."""
        from edge.train.data import split_by_hash

        rows = read_rows(self._train_file, request.columns)
        if self._dev_file is not None:
            return rows, read_rows(self._dev_file, request.columns)
        try:
            return split_by_hash(rows, _HELD_OUT_SHARE, self._train_file)
        except DataError:
            raise DataError(
                f"{len(rows)} rows are too few to hold a tenth out, chosen by a hash of the input,"
                " that judges the shortlist; give more, or a folder with train.jsonl and dev.jsonl",
                path=self._train_file,
            ) from None

    def write(self, folder: Path) -> None:
        """Put the shortlist ids beside the model files."""
        (folder / SHORTLIST_NAME).write_text(json.dumps(self.ids) + "\n", encoding="utf-8")

    def answers(self, model: Model) -> list[Generation]:
        """Greedy answers to the held-out rows."""
        return model.generate(
            [row.input for row in self._judged],
            fields=[row.fields for row in self._judged],
            on_long="truncate",
            **_GREEDY,
        )

    def compare(
        self, model: Model, before: Sequence[Generation], tolerance: Tolerance
    ) -> dict[str, Any]:
        """The manifest's section: what was shortlist, and accuracy `before` and with the list.

        Raises:
            ParityError: an answer that the list allows token for token has changed.
        """
        after = self.answers(model)
        differing = [
            row
            for row, (one, other) in enumerate(zip(before, after, strict=True))
            if one.token_ids != other.token_ids
        ]
        self._check(model, before, after, differing, tolerance)
        return {
            **self._facts,
            "judged_rows": len(self._judged),
            "greedy_identical": len(before) - len(differing),
            "before": self._figures(before),
            "after": self._figures(after),
        }

    def _figures(self, answers: Sequence[Generation]) -> dict[str, float]:
        from edge.train.metrics import exact_match, rouge_l

        texts = [answer.text for answer in answers]
        references = [row.target or "" for row in self._judged]
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
        """The best of all ids is the best of some: only an id that is missing may change an answer.

        But for ties: the list's columns of the input are computed from unrounded activations.
        """
        rows = [self._judged[row] for row in differing]
        sources, _ = model.encode(
            [row.input for row in rows], fields=[row.fields for row in rows], on_long="truncate"
        )
        for row, source in zip(differing, sources, strict=True):
            one, other = ([*a[row].token_ids, model.tokenizer.eos] for a in (before, after))
            place, one, other = where_they_part(one, other)
            if one[place] not in {*self.ids, *source}:
                continue
            scores = model.score_tokens([source] * 2, [one, other])
            if not abs(float(scores[0][place] - scores[1][place])) <= tolerance.tie:
                raise ParityError(
                    f"the shortlist changes the answer to {self._judged[row].input!r}, though it"
                    " has all tokens of the full answer; please report this model"
                )


def read_shortlist(artifact: Artifact) -> list[int] | None:
    """The shortlist ids of an artifact, or None where it has no shortlist.

    Raises:
        ArtifactError: the list is malformed.
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


def shortlist_line(facts: dict[str, Any]) -> str:
    """A manifest's shortlist section in one line."""
    before, after = facts["before"], facts["after"]
    return (
        f"{facts['size']:,} of {facts['pieces']:,} ids (targets of {facts['data']}); on"
        f" {facts['judged_rows']} rows held out: greedy {facts['greedy_identical']} as the full"
        f" head, exact match {before['exact_match']:.1%} → {after['exact_match']:.1%},"
        f" ROUGE-L {before['rouge_l']:.4f} → {after['rouge_l']:.4f}"
    )


def _files(data: Path) -> tuple[Path, Path | None]:
    """What makes the list, and what judges it, if that is a file of its own."""
    if not data.is_dir():
        return data, None
    train = split_file(data, "train")
    if train is None:
        raise DataError("the folder has no train.jsonl", path=data)
    return train, split_file(data, "dev")


def _name(file: Path, request: ShortlistRequest) -> str:
    """A file of the data by name: no path of the machine goes into a manifest."""
    return f"{request.data.resolve().name}/{file.name}" if request.data.is_dir() else file.name
