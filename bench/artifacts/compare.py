"""Comparison of a run with an earlier one: ratios of p50 and p95, and what is not comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MACHINE = ("cpu", "cores", "isa", "system")  # a difference in one: another machine
# Artifact's name, format, quantization, batch, concurrency.
Key = tuple[str, str, str, int, int]


@dataclass(frozen=True)
class Change:
    """One artifact and setting in both runs.

    Latencies are in milliseconds. Ratios are new over old: above 1 is slower. They are None if
    there is no new latency; `error` says why.
    """

    name: str
    old_p50: float
    old_p95: float
    p50: float | None = None
    p95: float | None = None
    error: str | None = None

    @property
    def p50_ratio(self) -> float | None:
        """New p50 over old p50."""
        return None if self.p50 is None else self.p50 / self.old_p50

    @property
    def p95_ratio(self) -> float | None:
        """New p95 over old p95."""
        return None if self.p95 is None else self.p95 / self.old_p95


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    `unpaired` names results of one run only, and `missing` those of the old run only.
    `other_machine` and `differences` are sentences about what else differs between the runs and may
    explain the ratios. `other_calls` is the first of them by which the runs answered other inputs,
    or answers of another length, so that a ratio says nothing.
    """

    changes: list[Change]
    unpaired: list[str]
    other_machine: str | None
    differences: list[str]
    missing: list[str] = field(default_factory=list)
    other_calls: str | None = None

    def regressions(self, max_ratio: float) -> list[Change]:
        """Results whose p50 ratio is above `max_ratio`, or that have no new latency."""
        return [c for c in self.changes if c.p50_ratio is None or c.p50_ratio > max_ratio]


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Pair the results of two reports by artifact, format, quantization, batch and concurrency.

    Artifacts are paired by folder name if it is unique in each run, so that runs in different
    places can be compared; else by path.

    Args:
        old: the JSON document of the earlier run.
        new: the JSON document of this run.
    """
    names = _names(old["results"], new["results"])
    before = {_key(r, names): r for r in old["results"] if r["latency"] is not None}
    after = {_key(r, names): r for r in new["results"]}
    changes, unpaired = [], []
    for key, result in after.items():
        if key in before:
            changes.append(_change(key, before[key]["latency"], result))
        elif result["latency"] is not None:
            unpaired.append(f"{_label(key)} (only in this run)")
    missing = [_label(key) for key in before if key not in after]
    unpaired += [f"{name} (only in the old run)" for name in missing]
    other_calls = list(_other_calls(old, new))
    return Comparison(
        changes,
        unpaired,
        _other_machine(old, new),
        [*other_calls, *_differences(old, new, before, after)],
        missing,
        other_calls[0] if other_calls else None,
    )


def _names(*runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Path → the shortest name that is unique in each run."""
    names: dict[str, str] = {}
    for results in runs:
        paths = {result["artifact"] for result in results}
        counts = Counter(Path(path).name for path in paths)
        for path in paths:
            # A path that is ambiguous in one run is so in the other, too.
            name = Path(path).name
            names[path] = name if counts[name] == 1 and names.get(path, name) == name else path
    return names


def _key(result: Mapping[str, Any], names: Mapping[str, str]) -> Key:
    return (
        names[result["artifact"]],
        result["format"],
        result["quantization"],
        result["batch"],
        result["concurrency"],
    )


def _label(key: Key) -> str:
    name, *_, batch, concurrency = key
    if (batch, concurrency) == (1, 1):
        return name
    return f"{name} batch {batch}, concurrency {concurrency}"


def _change(key: Key, before: Mapping[str, Any], result: Mapping[str, Any]) -> Change:
    after, error = result["latency"], result["error"]
    change = Change(_label(key), before["p50"], before["p95"], error=error)
    if after is None or error is not None:
        return change
    return Change(_label(key), before["p50"], before["p95"], after["p50"], after["p95"])


def _other_machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    different = [
        f"{name} {old['machine'].get(name)} then, {new['machine'].get(name)} now"
        for name in _MACHINE
        if old["machine"].get(name) != new["machine"].get(name)
    ]
    return f"measured on another machine: {'; '.join(different)}" if different else None


def _other_calls(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What was asked differently: other rows, or answers of another length."""
    if _changed(old, new, "data", "sha256"):
        yield "The old run used other data."
    elif _changed(old, new, "data", "rows"):
        yield "The old run used a different number of rows (--limit)."
    if _changed(old, new, "settings", "new_tokens"):
        yield "The old run used another answer length (--new-tokens)."


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], group: str, name: str) -> bool:
    return bool(old[group].get(name) != new[group].get(name))


def _differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Mapping[Key, Mapping[str, Any]],
    after: Mapping[Key, Mapping[str, Any]],
) -> Iterator[str]:
    for key in before:
        if key in after and before[key]["threads"] != after[key]["threads"]:
            threads = before[key]["threads"], after[key]["threads"]
            yield f"{_label(key)}: {threads[0]} thread(s) then, {threads[1]} now."
    for name in ("governor", "affinity"):
        if _changed(old, new, "machine", name):
            then, now = old["machine"].get(name), new["machine"].get(name)
            yield f"The machine's {name} differs: {then} then, {now} now."
