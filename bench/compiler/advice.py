"""The verdict of a search in a sentence, and advice if the target is missed."""

from __future__ import annotations

from edge.bench.compiler.accuracy_budget import METRICS
from edge.bench.compiler.search import Search
from edge.bench.compiler.trial import Trial
from edge.bench.engines.cache import bits_of
from edge.runtime.artifact.manifest import Architecture


def verdict(search: Search, best: Trial | None) -> str:
    """Whether the target is met and by which candidate, or how far the best is from it."""
    if best is None:
        if not search.trials:
            return "nothing could be measured"
        if search.time_up:
            return "nothing was measured on all rows and accepted within the time limit"
        return "no candidate is within the accuracy budget"
    timed, target = best.timed, search.target_ms
    found = (
        f"{best.candidate.name}: p50 {timed.p50:.1f} ms, p95 {timed.p95:.1f} ms"
        f" of {len(timed.ms)} answers"
    )
    if best.meets:
        return f"{found}; p95 ≤ {target:g} ms with 99 % confidence"
    if timed.p95 > target:
        return f"{found}; that is {timed.p95 / target:.2f} × the target of {target:g} ms"
    return f"{found}; too few to say that p95 ≤ {target:g} ms with 99 % confidence"


def advice(search: Search, best: Trial | None, shape: Architecture) -> list[str]:
    """Ways to meet the target, the easiest first; empty if it is met."""
    if best is not None and best.meets:
        return []
    if best is None and not search.trials:
        return []
    lines = []
    if search.time_up:
        lines.append("more time: run the same command again with a larger --time-limit")
    if best is None:
        if not any(
            bits_of(name) >= 16 for names in search.space.quantizations.values() for name in names
        ):
            lines.append("higher-precision quantizations: try without --quantize")
        lines.append(
            f"a larger --max-drop, or another --metric than {search.accuracy_budget.metric}"
            f" ({', '.join(METRICS)})"
        )
        return lines
    lines += _faster_but_rejected(search, best)
    if not search.space.shortlist and not best.candidate.spec.shortlist:
        lines.append("a vocabulary shortlist (onnx): --shortlist train.jsonl")
    if all(bits_of(name) > 4 for names in search.space.quantizations.values() for name in names):
        lines.append("4 bit: --quantize int4, int4_mixed (onnx), q4_0, q4_k_m (gguf)")
    if (layers := shape.num_decoder_layers) > 1:
        lines.append(
            f"fewer decoder layers than {layers}: edge train --decoder-layers {layers // 2}"
            " distills them from this model"
        )
    lines.append(
        f"a smaller model (this one: {shape.num_layers} + {shape.num_decoder_layers} layers, width"
        f" {shape.d_model}); edge bench-engines SHAPE measures the speed of a shape before any"
        " training"
    )
    return lines


def _faster_but_rejected(search: Search, best: Trial) -> list[str]:
    """The fastest candidate that would win with a larger accuracy budget."""
    faster = [
        (trial.timed.p95, trial.drop, trial.candidate.name)
        for trial in search.trials.values()
        if trial.drop is not None and not trial.accepted and trial.timed.p95 < best.timed.p95
    ]
    if not faster:
        return []
    p95, drop, name = min(faster)
    return [
        f"{name} has a p95 of {p95:.1f} ms, but {search.accuracy_budget.metric} drops by"
        f" {drop:.2%}: accept that with --max-drop, or train longer"
    ]
