"""Token lengths of a data set, and its duplicates, unknown tokens and leakage between splits.

Only the tokenizer is needed; no weights are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.runtime.registry import missing_extra
from edge.runtime.rows import Columns, Prompt, Row, read_rows
from edge.train.config import LONG_POLICIES
from edge.train.data.bucketing import Padding, measure_padding, plan_batches
from edge.train.data.coverage import Coverage, measure_coverage
from edge.train.data.overflow import fit_rows
from edge.train.data.pairs import Pair, data_files, make_pairs
from edge.train.data.split import normalize_for_dedup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_COLUMNS = Columns()
_BINS = 60  # of a histogram
_MULTIPLE = 8  # recommended lengths are rounded up to it: a margin, and a good size for kernels


@dataclass(frozen=True)
class LengthStatistics:
    """Token counts of one column; percentiles are nearest-rank (`p95`: 95 % are not longer)."""

    mean: float
    p50: int
    p95: int
    p99: int
    max: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> LengthStatistics:
        """Summarize one or more counts."""
        p50, p95, p99 = map(int, np.percentile(counts, (50, 95, 99), method="inverted_cdf"))
        return cls(sum(counts) / len(counts), p50, p95, p99, max(counts))

    @property
    def recommended(self) -> int:
        """A maximum length: the 95th percentile, rounded up to a multiple of 8."""
        return -(-self.p95 // _MULTIPLE) * _MULTIPLE


@dataclass(frozen=True)
class SplitLengths:
    """Lengths of one split, with </s> and the prompt, and other problems of its rows.

    Duplicates and leaked rows are found without regard to case and white space.

    Attributes:
        rows: Number of rows.
        input: Token counts of the inputs.
        target: Token counts of the targets.
        unknown: Ratio of <unk> among all tokens, 0 to 1.
        unknown_targets: Rows whose target contains <unk>.
        duplicates: Rows equal to an earlier one.
        leaked: Rows whose input is also in the training split.
        tasks: Rows by task.
        counts: Tokens of each input and of each target.
    """

    rows: int
    input: LengthStatistics
    target: LengthStatistics
    unknown: float
    unknown_targets: int
    duplicates: int
    leaked: int
    tasks: dict[str, int]
    counts: tuple[list[int], list[int]] = field(repr=False)


@dataclass(frozen=True)
class OverflowEffect:
    """Effect of a --long policy on the training split.

    Attributes:
        touched: Rows over a maximum length.
        rows: Rows after the policy is applied.
        lost: Ratio of the tokens that are lost, 0 to 1.
    """

    touched: int
    rows: int
    lost: float


@dataclass(frozen=True)
class LengthReport:
    """Statistics of a data set.

    Attributes:
        splits: Statistics by split.
        recommended: Recommended maximum input and target length.
        limits: The maximum lengths that `long` and `padding` are computed for.
        long: Effect of each --long policy.
        padding: Padding of the training batches.
        leak: An input that is both in the training split and in another one, if any.
        vocabulary: Characters that the tokenizer loses.
    """

    splits: dict[str, SplitLengths]
    recommended: tuple[int, int]
    limits: tuple[int, int]
    long: dict[str, OverflowEffect]
    padding: Padding
    leak: str | None
    vocabulary: Coverage

    def as_json(self) -> dict[str, Any]:
        """The report for JSON, without the lengths of single rows."""
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
    vocabulary: str = "extend",
) -> LengthReport:
    """Measure every split of DATA in the tokens of `tokenizer`.

    Args:
        data: A JSON-lines file, or a folder of splits.
        tokenizer: The model's tokenizer.
        columns: Column names of input, target and task.
        prefix: The prompt, as in training.
        max_source_length: Maximum input length; None takes the recommended one.
        max_target_length: Maximum target length; None takes the recommended one.
        tokens_per_step: Padded tokens of a batch, to measure padding.
        vocabulary: The --vocabulary policy.

    Raises:
        DataError: A file or row is not usable, or `vocabulary` is "refuse" and characters are lost.
        UsageError: The prompt needs a column that a row does not have.
    """
    prompt = Prompt.parse(prefix)
    rows = {split: read_rows(path, columns) for split, path in data_files(Path(data)).items()}
    pairs = {split: make_pairs(these, prompt) for split, these in rows.items()}
    everything = [pair for these in pairs.values() for pair in these]
    coverage, resolved = measure_coverage(everything, tokenizer, vocabulary)
    tokenizer = resolved.tokenizer
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
        padding=measure_padding(plan_batches(cut, tokens=tokens_per_step), cut, limits),
        leak=leaks[0] if leaks else None,
        vocabulary=coverage,
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
        input=LengthStatistics.of(counts[0]),
        target=LengthStatistics.of(counts[1]),
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
) -> OverflowEffect:
    lengths = [*zip(*train.counts, strict=True)]
    long = [n for n, (s, t) in enumerate(lengths) if s > limits[0] or t > limits[1]]
    everything = sum(s + t for s, t in lengths)
    rows = train.rows
    if policy == "drop":
        rows -= len(long)
        lost = sum(sum(lengths[n]) for n in long)
    else:
        # Chunking splits inputs without loss, but targets are cut under both policies.
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
    return OverflowEffect(len(long), rows, lost / everything)


def write_histogram(report: LengthReport, path: str | Path) -> None:
    """Write a PNG histogram of the training split's lengths, with the maximum lengths marked.

    Raises:
        MissingExtraError: matplotlib is not installed.
        EdgeError: The file cannot be written.
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
        # Up to the 99th percentile or the limit: one very long row would squeeze the others.
        top = max(LengthStatistics.of(counts).p99, limit) + 1
        beyond = sum(count > top for count in counts)
        width = -(-top // _BINS)  # in whole tokens, so that all bars cover equally many lengths
        edges = [start - 0.5 for start in range(0, top + width + 1, width)]
        axes.hist([count for count in counts if count <= top], bins=edges, color="#4477aa")
        axes.axvline(limit + 0.5, color="#cc3311", linestyle="--")
        axes.set_title(f"maximum length {limit}", color="#cc3311", fontsize="medium")
        axes.set_xlabel(f"{name} tokens" + (f" ({beyond} longer rows not shown)" * bool(beyond)))
        axes.set_ylabel("rows")
    figure.suptitle(f"{train.rows:,} training rows")
    with new_file(path) as staging:
        figure.savefig(staging, format="png", dpi=120)
