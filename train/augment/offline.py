"""More training rows from those there are: paraphrased or spoken inputs with the same target."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.rows import Columns, Row, read_rows
from edge.train.augment.noise import Noise
from edge.train.augment.paraphrase import Paraphraser
from edge.train.data import data_files, normalize_for_dedup
from edge.train.metrics import rouge_l_each

ORIGIN, PARENT = "origin", "augmented_from"  # columns that every row of the output has
FILTERS = ("too long", "empty", "length", "too similar", "too far", "duplicate", "held out")


@dataclass(frozen=True)
class Limits:
    """Which new inputs are kept: their ROUGE-L with the old one, and their words to its words."""

    min_rouge: float = 0.3
    max_rouge: float = 0.95
    min_length: float = 0.5
    max_length: float = 2.0

    def check(self) -> None:
        """
        Raises:
            UsageError: bounds that let nothing through.
        """
        for low, high, name in (
            (self.min_rouge, self.max_rouge, "rouge"),
            (self.min_length, self.max_length, "length"),
        ):
            if not 0 <= low < high:
                raise UsageError(
                    f"--min-{name} {low:g} and --max-{name} {high:g}: the first must be from 0 and"
                    " below the second"
                )


_COLUMNS = Columns()
_LIMITS = Limits()


@dataclass
class Augmented:
    """What came of it: rows read and written, new ones by origin, rejected ones by filter."""

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
) -> Augmented:
    """Write the training rows of DATA and new ones beside them to `output`, whole or not at all.

    Every row gets `origin` (its own, or "original"; "paraphrase"; "noise"), a new one also
    `augmented_from`, the input it was made of, by which `edge data split` keeps the two together.
    A new input that any row of the training, dev or test split has already is rejected; so at most
    `per_row` spoken inputs and all kept candidates of `paraphrase` are added to a row.

    Raises:
        DataError: rows that can't be used.
        UsageError: limits that let nothing through, or a prompt's field that a row lacks.
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
    speaker = Noise((row.input for row in rows), seed=seed) if noise else None
    chosen = rows[:limit]
    result = Augmented(read=len(chosen))
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
            if speaker is not None:
                for place, row in enumerate(batch):
                    found[place] += [("noise", text) for text in _spoken(speaker, row, per_row)]
            for row, new in zip(batch, found, strict=True):
                if not only_new:
                    _write(handle.write, {**row.fields, ORIGIN: _origin(row)}, result)
                for origin, text in new:
                    key = normalize_for_dedup(text)
                    if key in held_out or key in seen:
                        result.rejected["held out" if key in held_out else "duplicate"] += 1
                        continue
                    seen.add(key)
                    result.kept[origin] += 1
                    _write(handle.write, _new_row(row, columns, text, origin), result)
            if on_done is not None:
                on_done(start + len(batch), len(chosen))
    return result


def _filtered(
    text: str, candidates: Sequence[str], limits: Limits, rejected: Counter[str]
) -> list[str]:
    """The candidates that are neither the text again nor something else altogether."""
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


def _spoken(speaker: Noise, row: Row, per_row: int) -> Iterator[str]:
    for number in range(per_row):
        text = speaker.spoken(row.input, number)
        if text is not None:
            yield text


def _origin(row: Row) -> object:
    return row.fields.get(ORIGIN) or "original"


def _new_row(row: Row, columns: Columns, text: str, origin: str) -> dict[str, object]:
    parent = row.fields.get(PARENT) or row.input
    values = {**row.fields, columns.input: text, ORIGIN: origin, PARENT: parent}
    # Two rows with one id would be taken for one elsewhere.
    values.pop("id", None)
    return values


def _write(write: Callable[[str], object], values: dict[str, object], result: Augmented) -> None:
    write(json.dumps(values, ensure_ascii=False) + "\n")
    result.written += 1
