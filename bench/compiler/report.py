"""The report of a search, its section in the manifest, and the winner's artifact folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.compiler.search import Search
from edge.bench.compiler.trial import Trial
from edge.export.manifest import add_card, write_manifest
from edge.export.model_card import model_card
from edge.runtime.artifact import Artifact
from edge.runtime.platform.atomic import new_file, new_folder


@dataclass(frozen=True)
class Line:
    """One candidate of the table.

    `score` and `drop` are fractions, None if not all rows were answered. `pareto`: on the Pareto
    front of size, accuracy and p50, among the candidates measured on all rows.
    """

    name: str
    format: str
    quantization: str
    shortlist: bool
    threads: int
    settings: Mapping[str, Any]
    draft_tokens: int
    size_mb: float
    answers: int
    p50_ms: float
    p95_ms: float
    new_tokens: float
    load_ms: float
    peak_rss_mb: float
    truncated: int
    score: float | None
    drop: float | None
    sample_drop: float | None
    lost: int | None
    won: int | None
    outcome: str
    pareto: bool = False

    def as_json(self) -> dict[str, Any]:
        """The line in the JSON report, rounded."""
        return {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in dataclasses.asdict(self).items()
        }


def table(search: Search, winner: Trial | None) -> list[Line]:
    """A line for every candidate: first those measured on all rows, the fastest first."""
    lines = [_line(search, trial, winner) for trial in search.trials.values()]
    full = [line for line in lines if line.score is not None]
    lines = [
        dataclasses.replace(
            line,
            pareto=line.score is not None and not any(_dominates(o, line) for o in full),
        )
        for line in lines
    ]
    return sorted(lines, key=lambda line: (line.score is None, line.p50_ms))


def _line(search: Search, trial: Trial, winner: Trial | None) -> Line:
    candidate, timed = trial.candidate, trial.timed
    made = search.runner.export(candidate.spec)
    assert made is not None
    return Line(
        name=candidate.name,
        **candidate.as_json(),
        size_mb=made["size"] / 1e6,
        answers=len(timed.ms),
        p50_ms=timed.p50,
        p95_ms=timed.p95,
        new_tokens=sum(timed.new_tokens) / len(timed.new_tokens),
        load_ms=timed.load_ms,
        peak_rss_mb=timed.peak_rss / 1e6,
        truncated=timed.truncated,
        score=trial.score,
        drop=trial.drop,
        sample_drop=trial.sample_drop,
        lost=trial.lost,
        won=trial.won,
        outcome="chosen" if trial is winner else _outcome(trial, search.target_ms),
    )


def _outcome(trial: Trial, target_ms: float) -> str:
    if trial.score is None:
        return trial.outcome or f"not among the best after {len(trial.timed.ms)} answers"
    if not trial.accepted:
        return "out of the accuracy budget"
    if trial.meets:
        return "accepted"
    return "misses the target" if trial.timed.p95 > target_ms else "too few runs for the target"


def _dominates(one: Line, other: Line) -> bool:
    """Whether one is at least as good in size, accuracy and p50, and better in one of them."""
    assert one.score is not None
    assert other.score is not None
    own = (one.size_mb, -one.score, one.p50_ms)
    its = (other.size_mb, -other.score, other.p50_ms)
    return own != its and all(a <= b for a, b in zip(own, its, strict=True))


def report(
    search: Search, lines: Sequence[Line], winner: Trial | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON report; docs/compile.md describes the fields.

    Args:
        search: the search.
        lines: its table.
        winner: what is published, None if nothing is.
        facts: fields about the call as a whole.
    """
    budget = search.accuracy_budget
    return {
        "schema_version": 1,
        "kind": "compile",
        **facts,
        "target_ms": search.target_ms,
        "metric": budget.metric,
        "max_drop": budget.max_drop,
        "source_score": round(budget.source_score, 6),
        "rows": len(search.runner.rows),
        "complete": not search.time_up,
        "seconds": round(search.seconds, 1),
        "space": search.space.as_json(),
        "winner": winner.candidate.name if winner else None,
        "meets_target": bool(winner and winner.meets),
        "tried": [line.as_json() for line in lines],
        "failed": dict(sorted(search.runner.failures.items())),
    }


def manifest_section(found: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a report that the winner's manifest keeps."""
    left_out = ("tried", "machine", "schema_version", "kind")
    machine = found["machine"]
    return {
        **{name: value for name, value in found.items() if name not in left_out},
        "machine": {name: machine[name] for name in ("cpu", "cores", "isa", "versions")},
        "tried": [
            {name: line[name] for name in ("name", "size_mb", "answers", "p50_ms", "p95_ms")}
            | {name: line[name] for name in ("score", "drop", "outcome")}
            for line in found["tried"]
        ],
    }


def write_winner(
    folder: Path, output: Path, winner: Trial, section: Mapping[str, Any], *, force: bool
) -> None:
    """Publish a copy of the winner's artifact that runs as it was measured.

    Raises:
        OutputExistsError: `output` exists and `force` is off.
        ArtifactError: the artifact was modified since its export.
        EdgeError: the disk is full, or the folder is not writable.
    """
    artifact = Artifact.open(folder)
    candidate = winner.candidate
    old = artifact.manifest
    generation = dict(old.generation)
    if candidate.draft_tokens:
        generation["prompt_lookup_num_tokens"] = candidate.draft_tokens
    manifest = dataclasses.replace(
        old,
        generation=generation,
        runtime={**old.runtime, "threads": candidate.threads, **candidate.settings},
        compiled=dict(section),
    )
    with new_folder(output, force=force) as staging:
        for name in old.files:
            shutil.copyfile(artifact.path(name), staging / name)
        write_manifest(staging, add_card(manifest, model_card(manifest), staging))
        Artifact.open(staging, verify=True)


def write_report(found: Mapping[str, Any], output: Path) -> list[Path]:
    """Write the report beside the output, as JSON and as Markdown; returns both paths.

    Raises:
        EdgeError: the disk is full, or the folder is not writable.
    """
    texts = {
        ".report.json": json.dumps(found, indent=2, ensure_ascii=False) + "\n",
        ".report.md": markdown(found),
    }
    paths = []
    for suffix, text in texts.items():
        path = output.with_name(output.name + suffix)
        with new_file(path) as staging:
            staging.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def markdown(found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    machine = found["machine"]
    lines = [
        f"# {_plain(found['model'])}: candidates for p95 ≤ {found['target_ms']:g} ms",
        "",
        f"`{found['command'].replace('`', '')}`, {found['created']}, {machine['cpu']},"
        f" {machine['cores']} cores.",
        "",
        f"{found['metric']} of the source model (float32, greedy) on {found['rows']} rows:"
        f" {found['source_score']:.2%}; at most {found['max_drop']:.2%} lower is accepted."
        f" Verdict: {_plain(found['verdict'])}",
        "",
        f"| candidate | size MB | {found['metric']} | drop | p50 ms | p95 ms | answers | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["tried"]:
        score = "" if one["score"] is None else f"{one['score']:.2%}"
        drop = drop_text(one["drop"], one["sample_drop"])
        mark = "**" if one["pareto"] else ""
        lines.append(
            f"| {mark}{one['name']}{mark} | {one['size_mb']:.1f} | {score} | {drop}"
            f" | {one['p50_ms']:.2f} | {one['p95_ms']:.2f} | {one['answers']} | {one['outcome']} |"
        )
    lines += [
        "",
        "Bold: on the Pareto front of size, accuracy and p50. ~: on the rows that were answered.",
    ]
    if found["failed"]:
        lines += ["", "Not available:", ""]
        lines += [f"* {name}: {_plain(why)}" for name, why in found["failed"].items()]
    if found["advice"]:
        lines += ["", "What would help:", "", *(f"* {_plain(one)}" for one in found["advice"])]
    return "\n".join(lines) + "\n"


def drop_text(drop: float | None, sample_drop: float | None) -> str:
    """The drop on all rows, or `~` and that on the rows that were answered."""
    if drop is None:
        return "" if sample_drop is None else f"~ {sample_drop:+.1%}"
    return f"{drop:+.2%}"


def _plain(text: str) -> str:
    """One line without markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
