"""What a search's result means: the verdict in a sentence, and what would help where it is bad."""

from __future__ import annotations

from edge.bench.compiler.accuracy_budget import METRICS
from edge.bench.compiler.search import Search, Trial
from edge.bench.engines.cache import bits_of
from edge.runtime.artifact.manifest import Architecture


def verdict(search: Search, best: Trial | None) -> str:
    """Whether the target is met, by what, and else how far the best is from it."""
    if best is None:
        if not search.tried:
            return "nothing could be measured"
        if search.time_up:
            return "nothing was measured on all rows and accepted within the time"
        return "nothing is within the accuracy budget"
    timed, target = best.timed, search.target_ms
    found = (
        f"{best.candidate.name}: p50 {timed.p50:.1f} ms, p95 {timed.p95:.1f} ms"
        f" of {len(timed.ms)} answers"
    )
    if best.meets:
        return f"{found}; p95 ≤ {target:g} ms at 99 % confidence"
    if timed.p95 > target:
        return f"{found}; that is {timed.p95 / target:.2f} × the target of {target:g} ms"
    return f"{found}; p95 ≤ {target:g} ms is not shown at 99 % confidence"


def advice(search: Search, best: Trial | None, shape: Architecture) -> list[str]:
    """What would bring a model within its target, the cheapest first."""
    if best is not None and best.meets:
        return []
    if best is None and not search.tried:
        return []
    lines = []
    if search.time_up:
        lines.append("the search was cut off: call again, with more --budget")
    if best is None:
        if not any(
            bits_of(v) >= 16 for names in search.space.quantizations.values() for v in names
        ):
            lines.append("finer quantizations were left out: try without --quantize")
        lines.append(
            f"a larger --max-drop, or another --metric than {search.judge.metric}"
            f" ({', '.join(METRICS)})"
        )
        return lines
    lines += _within_reach(search, best)
    if not search.space.shortlist and not best.candidate.variant.shortlist:
        lines.append("a vocabulary shortlist (onnx): --shortlist train.jsonl")
    if all(bits_of(v) > 4 for names in search.space.quantizations.values() for v in names):
        lines.append("4 bit: --quantize int4, int4_mixed (onnx), q4_0, q4_k_m (gguf)")
    if (layers := shape.num_decoder_layers) > 1:
        lines.append(
            f"fewer decoder layers than {layers}: edge train --decoder-layers {layers // 2} distils"
            " them from this model"
        )
    lines.append(
        f"a smaller model (this one: {shape.num_layers} + {shape.num_decoder_layers} layers, width"
        f" {shape.d_model}); edge bench --arch SHAPE tells what a shape can reach here before any"
        " training"
    )
    return lines


def _within_reach(search: Search, best: Trial) -> list[str]:
    """What would be faster if it were accurate enough."""
    faster = [
        one
        for one in search.tried.values()
        if one.drop is not None and not one.accepted and one.timed.p95 < best.timed.p95
    ]
    if not faster:
        return []
    one = min(faster, key=lambda tried: tried.timed.p95)
    return [
        f"{one.candidate.name} has p95 {one.timed.p95:.1f} ms, but {search.judge.metric} falls by"
        f" {one.drop:.2%}: accept that with --max-drop, or train longer"
    ]
