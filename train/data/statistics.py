"""How long the rows of a data set are in a model's tokens, and what else training trips over.

Nothing is trained and no weights are read: the tokenizer is enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.registry import missing_extra
from edge.runtime.rows import Columns, Prompt, Row, read_rows
from edge.train.config import LONG_POLICIES
from edge.train.data import Pair, data_files, make_pairs, normalize_for_dedup
from edge.train.data.bucketing import Padding, padding_of, plan_batches
from edge.train.data.overflow import fit_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_COLUMNS = Columns()
_BINS = 60  # of a histogram
_MULTIPLE = 8  # maximum lengths are rounded up to it: kernels like it, and it leaves a little room


@dataclass(frozen=True)
class Spread:
    """Token counts of one column; `p95` is the smallest that 95 % of the rows do not exceed."""

    mean: float
    p50: int
    p95: int
    p99: int
    max: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> Spread:
        ordered = sorted(counts)

        def quantile(percent: int) -> int:
            return ordered[-(-len(ordered) * percent // 100) - 1]

        mean = sum(ordered) / len(ordered)
        return cls(mean, quantile(50), quantile(95), quantile(99), ordered[-1])

    @property
    def recommended(self) -> int:
        """A maximum length: the 95th percentile, rounded up."""
        return -(-self.p95 // _MULTIPLE) * _MULTIPLE


@dataclass(frozen=True)
class SplitLengths:
    """One split. Lengths count </s> and the prompt.

    `unknown` is the share of all tokens that are <unk>; `unknown_targets` counts the rows whose
    target holds one. `duplicates` counts rows that say the same as an earlier one, `leaked` rows
    whose input is in the training split too, case and white space aside; `tasks` counts by task.
    """

    rows: int
    input: Spread
    target: Spread
    unknown: float
    unknown_targets: int
    duplicates: int
    leaked: int
    tasks: dict[str, int]
    counts: tuple[list[int], list[int]] = field(repr=False)


@dataclass(frozen=True)
class LongRows:
    """What one --long does to the training split: rows it touches, rows then, tokens gone (0–1)."""

    touched: int
    rows: int
    lost: float


@dataclass(frozen=True)
class LengthReport:
    """Everything about a data set; `limits` are the maximum lengths that `long` is told for."""

    splits: dict[str, SplitLengths]
    recommended: tuple[int, int]
    limits: tuple[int, int]
    long: dict[str, LongRows]
    padding: Padding
    leak: str | None  # an input that is in two splits

    def as_json(self) -> dict[str, Any]:
        """The report without the length of every row."""
        values = asdict(self)
        for split in values["splits"].values():
            del split["counts"]
        return {"schema_version": 1, **values}


def measure_lengths(
    data: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    columns: Columns = _COLUMNS,
    prefix: str | None = None,
    max_source_length: int | None = None,
    max_target_length: int | None = None,
    tokens_per_step: int = 4096,
) -> LengthReport:
    """Measure every split of DATA; None as a maximum length takes the recommended one.

    Raises:
        DataError: a file or row that can't be used.
        UsageError: the prompt needs a column that a row does not have.
    """
    prompt = Prompt.parse(prefix)
    rows = {split: read_rows(path, columns) for split, path in data_files(Path(data)).items()}
    pairs = {split: make_pairs(these, prompt) for split, these in rows.items()}
    trained = {normalize_for_dedup(row.input) for row in rows["train"]}
    leaks = [
        row.input
        for split in rows
        for row in rows[split]
        if split != "train" and normalize_for_dedup(row.input) in trained
    ]
    splits = {
        split: _measure_split(these, pairs[split], tokenizer, trained if split != "train" else None)
        for split, these in rows.items()
    }
    train = splits["train"]
    recommended = (train.input.recommended, train.target.recommended)
    limits = (max_source_length or recommended[0], max_target_length or recommended[1])
    cut = [(min(s, limits[0]), min(t, limits[1])) for s, t in zip(*train.counts, strict=True)]
    return LengthReport(
        splits=splits,
        recommended=recommended,
        limits=limits,
        long={
            policy: _effect(policy, pairs["train"], train, tokenizer, limits)
            for policy in LONG_POLICIES
        },
        padding=padding_of(plan_batches(cut, tokens=tokens_per_step), cut, limits),
        leak=leaks[0] if leaks else None,
    )


def _measure_split(
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    trained: set[str] | None,
) -> SplitLengths:
    sources = tokenizer([pair.source for pair in pairs], verbose=False)["input_ids"]
    targets = tokenizer([pair.target for pair in pairs], verbose=False)["input_ids"]
    counts = [len(ids) for ids in sources], [len(ids) for ids in targets]
    unknown = tokenizer.unk_token_id
    unknown_tokens = sum(ids.count(unknown) for ids in (*sources, *targets))
    distinct = {
        (normalize_for_dedup(pair.source), normalize_for_dedup(pair.target)) for pair in pairs
    }
    return SplitLengths(
        rows=len(rows),
        input=Spread.of(counts[0]),
        target=Spread.of(counts[1]),
        unknown=unknown_tokens / (sum(counts[0]) + sum(counts[1])),
        unknown_targets=sum(unknown in ids for ids in targets),
        duplicates=len(rows) - len(distinct),
        leaked=sum(normalize_for_dedup(row.input) in trained for row in rows) if trained else 0,
        tasks=dict(sorted(Counter(row.task for row in rows if row.task is not None).items())),
        counts=counts,
    )


def _effect(
    policy: str,
    pairs: Sequence[Pair],
    train: SplitLengths,
    tokenizer: PreTrainedTokenizerBase,
    limits: tuple[int, int],
) -> LongRows:
    lengths = [*zip(*train.counts, strict=True)]
    long = [n for n, (s, t) in enumerate(lengths) if s > limits[0] or t > limits[1]]
    everything = sum(s + t for s, t in lengths)
    rows = train.rows
    if policy == "drop":
        rows -= len(long)
        lost = sum(sum(lengths[n]) for n in long)
    else:
        # What is cut off: of inputs nothing where they are dealt to several rows.
        lost = sum(max(0, lengths[n][1] - limits[1]) for n in long)
        if policy == "truncate":
            lost += sum(max(0, lengths[n][0] - limits[0]) for n in long)
        elif long:
            chunked, _ = fit_rows(
                [pairs[n] for n in long],
                tokenizer,
                policy=policy,
                max_source_length=limits[0],
                max_target_length=limits[1],
            )
            rows += len(chunked) - len(long)
    return LongRows(len(long), rows, lost / everything)


def write_histogram(report: LengthReport, path: str | Path) -> None:
    """A PNG of the training split's lengths, its maximum lengths marked.

    Raises:
        MissingExtraError: matplotlib is not installed.
        EdgeError: the file can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("a histogram", "matplotlib", "plots") from None
    from edge.runtime.platform.atomic import new_file

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    train = report.splits["train"]
    panels = zip(
        figure.subplots(1, 2), ("input", "target"), train.counts, report.limits, strict=True
    )
    for axes, name, counts, limit in panels:
        # Bins reach to the 99th percentile or the limit: one giant row would squeeze the others.
        top = max(Spread.of(counts).p99, limit) + 1
        beyond = sum(count > top for count in counts)
        width = -(-top // _BINS)  # whole tokens, or bars would be high or low by chance
        edges = [start - 0.5 for start in range(0, top + width + 1, width)]
        axes.hist([count for count in counts if count <= top], bins=edges, color="#4477aa")
        axes.axvline(limit + 0.5, color="#cc3311", linestyle="--")
        axes.set_title(f"maximum length {limit}", color="#cc3311", fontsize="medium")
        axes.set_xlabel(f"{name} tokens" + (f" ({beyond} longer rows not shown)" * bool(beyond)))
        axes.set_ylabel("rows")
    figure.suptitle(f"{train.rows:,} training rows")
    with new_file(path) as staging:
        figure.savefig(staging, format="png", dpi=120)
