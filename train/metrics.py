"""Text metrics of predictions against references, and quality bands of their values.

Training and the benchmark both use them, so that a value means the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.runtime.errors import UsageError
from edge.runtime.registry import missing_extra

# Upper bound (exclusive) of each eval_loss band.
_EVAL_LOSS_BANDS = ((1.0, "excellent"), (2.0, "good"), (5.0, "decent"), (10.0, "weak"))
# Lower bound (inclusive) of each ROUGE-L band but the best, which has an exclusive one.
_ROUGE_L_BANDS = ((0.3, "good"), (0.2, "decent"), (0.1, "weak"))


def text_metrics(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Exact and verbatim match and ROUGE-L as fractions (0 to 1), corpus BLEU in points (0 to 100).

    Exact match collapses white space, verbatim match compares every character.

    Raises:
        UsageError: The two differ in length or are empty.
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    if len(predictions) != len(references):
        raise UsageError(
            f"{len(predictions)} predictions can't be scored against {len(references)} references;"
            " give one reference per prediction"
        )
    if not references:
        raise UsageError("there is nothing to score: no predictions were given")
    return {
        "exact_match": exact_match(predictions, references),
        "verbatim_match": verbatim_match(predictions, references),
        "rouge_l": rouge_l(predictions, references),
        "bleu": bleu(predictions, references),
    }


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The fraction of predictions that equal their reference, after collapsing whitespace."""
    return sum(exact_match_each(predictions, references)) / len(references)


def exact_match_each(predictions: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each prediction equals its reference, as `exact_match` compares them."""
    pairs = zip(predictions, references, strict=True)
    return [" ".join(p.split()) == " ".join(r.split()) for p, r in pairs]


def verbatim_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The fraction of predictions that equal their reference in every character."""
    return sum(verbatim_match_each(predictions, references)) / len(references)


def verbatim_match_each(predictions: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each prediction equals its reference in every character, white space included."""
    return [p == r for p, r in zip(predictions, references, strict=True)]


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean sentence-level ROUGE-L F1 without stemming, 0 to 1; see `rouge_l_each`."""
    return sum(rouge_l_each(predictions, references)) / len(references)


def rouge_l_each(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of each pair without stemming, 0 to 1.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), as computed by
    the package rouge-score: lowercased, split at everything but letters and digits.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise missing_extra("text metrics", "rouge_score", "bench") from None
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(predictions, references, strict=True)
    return [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs]


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100, with sacrebleu's defaults (13a tokens, exponential smoothing).

    Source: Post, "A Call for Clarity in Reporting BLEU Scores" (2018).
    """
    try:
        import sacrebleu
    except ImportError:
        raise missing_extra("text metrics", "sacrebleu", "bench") from None
    return float(sacrebleu.corpus_bleu(list(predictions), [list(references)]).score)


def fit_band_eval_loss(value: float) -> str:
    """excellent < 1 ≤ good < 2 ≤ decent < 5 ≤ weak < 10 ≤ poor; NaN is poor."""
    for bound, name in _EVAL_LOSS_BANDS:
        if value < bound:
            return name
    return "poor"


def fit_band_rouge_l(value: float) -> str:
    """poor < 0.1 ≤ weak < 0.2 ≤ decent < 0.3 ≤ good ≤ 0.5 < excellent; NaN is poor."""
    if value > 0.5:
        return "excellent"
    for bound, name in _ROUGE_L_BANDS:
        if value >= bound:
            return name
    return "poor"
