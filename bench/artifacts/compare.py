"""This run against an earlier one: ratios of p50 and p95, and what can't be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What makes it another machine.
_MACHINE = ("cpu", "cores", "isa", "system")
# Artifact's name, format, quantization, batch, concurrency.
Key = tuple[str, str, str, int, int]


@dataclass(frozen=True)
class Change:
    """One line in both runs; ratios are new over old, above 1 is slower. None: not measured now,
    and `error` says why."""

    name: str
    old_p50: float
    old_p95: float
    p50: float | None = None
    p95: float | None = None
    error: str | None = None

    @property
    def p50_ratio(self) -> float | None:
        return None if self.p50 is None else self.p50 / self.old_p50

    @property
    def p95_ratio(self) -> float | None:
        return None if self.p95 is None else self.p95 / self.old_p95


@dataclass(frozen=True)
class Comparison:
    """`unpaired` are lines of one run alone, `other_machine` and `differences` say in sentences why
    ratios may come from something else than the artifacts."""

    changes: list[Change]
    unpaired: list[str]
    other_machine: str | None
    differences: list[str]

    def regressions(self, most: float) -> list[Change]:
        """What is more than `most` times slower by its median, or is not measured any more."""
        return [c for c in self.changes if c.p50_ratio is None or c.p50_ratio > most]


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Pair the lines of two reports by artifact, format, quantization, batch and concurrency.

    Artifacts are paired by their folder's name where it is one artifact's alone in each run, so
    that runs in different places can be compared; else by their path.
    """
    names = _names(old["results"], new["results"])
    before = {_key(r, names): r for r in old["results"] if r["latency"] is not None}
    after = {_key(r, names): r for r in new["results"]}
    changes, unpaired = [], []
    for key, result in after.items():
        if key in before:
            changes.append(_change(key, before[key]["latency"], result))
        elif result["latency"] is not None:
            unpaired.append(f"{_words(key)} (only in this run)")
    unpaired += [f"{_words(key)} (only in the old run)" for key in before if key not in after]
    return Comparison(
        changes, unpaired, _other_machine(old, new), list(_differences(old, new, before, after))
    )


def _names(*runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Path → the shortest name that means one artifact alone in each run."""
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


def _words(key: Key) -> str:
    name, *_, batch, concurrency = key
    asked = "" if (batch, concurrency) == (1, 1) else f" batch {batch}, concurrency {concurrency}"
    return name + asked


def _change(key: Key, before: Mapping[str, Any], result: Mapping[str, Any]) -> Change:
    after, error = result["latency"], result["error"]
    change = Change(_words(key), before["p50"], before["p95"], error=error)
    if after is None or error is not None:
        return change
    return Change(_words(key), before["p50"], before["p95"], after["p50"], after["p95"])


def _other_machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    different = [
        f"{name} {old['machine'].get(name)} then, {new['machine'].get(name)} now"
        for name in _MACHINE
        if old["machine"].get(name) != new["machine"].get(name)
    ]
    return f"measured on another machine: {'; '.join(different)}" if different else None


def _differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Mapping[Key, Mapping[str, Any]],
    after: Mapping[Key, Mapping[str, Any]],
) -> Iterator[str]:
    if _at(old, "data", "sha256") != _at(new, "data", "sha256"):
        yield "The data is not that of the old run."
    elif _at(old, "data", "rows") != _at(new, "data", "rows"):
        yield "Another number of rows was used in the old run (--limit)."
    if _at(old, "settings", "new_tokens") != _at(new, "settings", "new_tokens"):
        yield "Answers had another length in the old run (--new-tokens)."
    for key in before:
        if key in after and before[key]["threads"] != after[key]["threads"]:
            threads = before[key]["threads"], after[key]["threads"]
            yield f"{_words(key)}: {threads[0]} thread(s) then, {threads[1]} now."
    for name in ("governor", "affinity"):
        if _at(old, "machine", name) != _at(new, "machine", name):
            then, now = _at(old, "machine", name), _at(new, "machine", name)
            yield f"The machine's {name} is not that of the old run: {then} then, {now} now."


def _at(values: Mapping[str, Any], name: str, inner: str) -> Any:
    return values[name].get(inner)
