"""Augmented copies of the training rows: paraphrased or noisy inputs with the same target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.rows import Columns, Row, read_rows, to_json
from edge.train.augment.noise import NoiseAugmenter
from edge.train.augment.paraphrase import Paraphraser
from edge.train.data.pairs import data_files
from edge.train.data.split import PARENT_COLUMN, normalize_for_dedup
from edge.train.metrics import rouge_l_each

ORIGIN_COLUMN = "origin"  # how a row was made: original, paraphrase or noise
FILTERS = ("too long", "empty", "length", "too similar", "too far", "duplicate", "held out")


@dataclass(frozen=True)
class Limits:
    """Bounds for new inputs: ROUGE-L with the old input, and the ratio of their word counts."""

    min_rouge: float = 0.3
    max_rouge: float = 0.95
    min_length: float = 0.5
    max_length: float = 2.0

    def check(self) -> None:
        """Check that the bounds let something through.

        Raises:
            UsageError: They do not.
        """
        for low, high, name in (
            (self.min_rouge, self.max_rouge, "rouge"),
            (self.min_length, self.max_length, "length"),
        ):
            if not 0 <= low < high:
                raise UsageError(
                    f"--min-{name} {low:g} and --max-{name} {high:g}: the minimum must be at least"
                    " 0 and less than the maximum"
                )


_COLUMNS = Columns()


@dataclass
class AugmentationResult:
    """Rows read and written, new rows by origin, and rejected candidates by filter."""

    read: int = 0
    written: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)


def augment(
    data: str | Path,
    output: str | Path,
    *,
    columns: Columns = _COLUMNS,
    paraphrase: Paraphraser | None = None,
    noise: bool = False,
    per_row: int = 1,
    limits: Limits = Limits(),
    batch_size: int = 16,
    seed: int = 0,
    limit: int | None = None,
    only_new: bool = False,
    on_done: Callable[[int, int], None] | None = None,
) -> AugmentationResult:
    """Write the training rows of DATA and new rows beside them to `output`, atomically.

    Every row gets the column `origin` (its own, or "original"; "paraphrase"; "noise"). A new row
    also gets `augmented_from`, the input that it was made from, by which `edge data split` keeps
    the two together. A new input that already occurs in the training, dev or test split is
    rejected.

    Args:
        data: A JSON-lines file, or a folder of splits.
        output: The file to write.
        columns: Column names of input and target.
        paraphrase: Makes paraphrases, if given.
        noise: Whether to add rule-based disfluencies.
        per_row: Noisy inputs to try for each row.
        limits: Bounds for paraphrases.
        batch_size: Rows that are paraphrased at once.
        seed: Seed of the random choices.
        limit: Read only this many rows.
        only_new: Leave out the original rows.
        on_done: Called with the number of rows done and the number of all rows.

    Raises:
        DataError: A row is not usable.
        UsageError: The limits let nothing through, or a row lacks a column that the prompt needs.
    """
    limits.check()
    files = data_files(Path(data))
    rows = read_rows(files.pop("train"), columns)
    held_out = {
        normalize_for_dedup(row.input)
        for path in files.values()
        for row in read_rows(path, columns)
    }
    seen = {normalize_for_dedup(row.input) for row in rows}
    augmenter = NoiseAugmenter((row.input for row in rows), seed=seed) if noise else None
    chosen = rows[:limit]
    result = AugmentationResult(read=len(chosen))
    with new_file(output) as staging, staging.open("w", encoding="utf-8") as handle:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            found: list[list[tuple[str, str]]] = [[] for _ in batch]
            if paraphrase is not None:
                candidates = paraphrase(
                    [row.input for row in batch], [row.fields for row in batch], seed + start
                )
                result.rejected["too long"] += sum(not texts for texts in candidates)
                for place, texts in enumerate(candidates):
                    accepted = _filtered(batch[place].input, texts, limits, result.rejected)
                    found[place] += [("paraphrase", text) for text in accepted]
            if augmenter is not None:
                for place, row in enumerate(batch):
                    found[place] += [("noise", text) for text in _noisy(augmenter, row, per_row)]
            for row, new in zip(batch, found, strict=True):
                if not only_new:
                    _write(handle.write, {**row.fields, ORIGIN_COLUMN: _origin(row)}, result)
                for origin, text in new:
                    key = normalize_for_dedup(text)
                    if key in held_out or key in seen:
                        result.rejected["held out" if key in held_out else "duplicate"] += 1
                        continue
                    seen.add(key)
                    result.kept[origin] += 1
                    _write(handle.write, _new_row(row, text, origin), result)
            if on_done is not None:
                on_done(start + len(batch), len(chosen))
    return result


def _filtered(
    text: str, candidates: Sequence[str], limits: Limits, rejected: Counter[str]
) -> list[str]:
    """The candidates within the limits: neither too similar to the text nor too different."""
    words = len(text.split())
    kept = []
    scores = rouge_l_each(candidates, [text] * len(candidates))
    for candidate, score in zip(candidates, scores, strict=True):
        ratio = len(candidate.split()) / words
        if not candidate.strip():
            rejected["empty"] += 1
        elif not limits.min_length <= ratio <= limits.max_length:
            rejected["length"] += 1
        elif score >= limits.max_rouge or normalize_for_dedup(candidate) == normalize_for_dedup(
            text
        ):
            rejected["too similar"] += 1
        elif score < limits.min_rouge:
            rejected["too far"] += 1
        else:
            kept.append(candidate.strip())
    return kept


def _noisy(augmenter: NoiseAugmenter, row: Row, per_row: int) -> Iterator[str]:
    for number in range(per_row):
        text = augmenter.augment(row.input, number)
        if text is not None:
            yield text


def _origin(row: Row) -> object:
    return row.fields.get(ORIGIN_COLUMN) or "original"


def _new_row(row: Row, text: str, origin: str) -> dict[str, object]:
    parent = row.fields.get(PARENT_COLUMN) or row.input
    values = {**row.fields, row.columns.input: text, ORIGIN_COLUMN: origin, PARENT_COLUMN: parent}
    # Ids must stay unique.
    values.pop("id", None)
    return values


def _write(
    write: Callable[[str], object], values: dict[str, object], result: AugmentationResult
) -> None:
    write(to_json(values) + "\n")
    result.written += 1
