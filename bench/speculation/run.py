"""What drafts from the input gain: on an artifact and its data, and replayed on a larger shape."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge.bench.engines.cache import Prepared
from edge.bench.engines.process import EngineFailedError, EngineMissingError
from edge.bench.engines.run import Ids
from edge.bench.speculation.replay import Replay
from edge.bench.timing.latency import MIN_RUNS, spread_rows
from edge.bench.timing.machine import machine_info
from edge.export.publish import Target
from edge.runtime.errors import EdgeError, UnsupportedError, UsageError
from edge.runtime.model import Model, load
from edge.runtime.rows import Row

Progress = Callable[[str, int, int], None]  # (phase, done, of)

_NOTHING_COPIED = (32, 16)  # tokens in and out, as in the engine benchmark


@dataclass(frozen=True)
class Gain:
    """One comparison. `ratio` is the median over runs of plain greedy's time over that with drafts,
    both on the same input one after the other; medians are in milliseconds."""

    what: str
    runs: int
    tokens_per_step: float
    plain_ms: float
    drafted_ms: float
    ratio: float
    ratio_p5: float
    ratio_p95: float


@dataclass(frozen=True)
class Answered:
    """A row's source ids, its answer with eos, and the decoder steps that drafts took for it."""

    source: tuple[int, ...]
    answer: tuple[int, ...]
    steps: int


@dataclass(frozen=True)
class SpeculationReport:
    """`identical` counts rows whose answer is token for token the same with drafts."""

    artifact: str
    draft_tokens: int
    threads: int
    rows: int
    identical: int
    tokens_per_step: float
    gains: list[Gain]
    machine: dict[str, Any]
    created: str

    def as_json(self) -> dict[str, Any]:
        return {"schema_version": 1, "kind": "speculation", **dataclasses.asdict(self)}


def run_speculation(
    artifact: Path,
    rows: Sequence[Row],
    *,
    draft_tokens: int = 6,
    replay: str | None = None,
    cache: Path | None = None,
    runs: int = MIN_RUNS,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> SpeculationReport:
    """Compare greedy search with and without drafts on `rows`, one at a time.

    With `replay`, the name of a shape, the same rows' drafts are replayed on it (see
    `edge.bench.speculation.replay`) at the artifact's quantization, and beside them what drafts cost where they
    never help.

    Raises:
        UnsupportedError: the artifact's engine has no drafts.
        UsageError: too few runs, no such shape, or its vocabulary is smaller than the artifact's.
    """
    if runs < MIN_RUNS:
        raise UsageError(f"--runs must be at least {MIN_RUNS}, not {runs}: fewer make no median")
    notify = on_progress or (lambda *_: None)
    with load(artifact, threads=threads) as model:
        if not model.engine.supports_prompt_lookup:
            raise UnsupportedError(f"{artifact}: drafts from the input need an onnx artifact")
        answered, identical = _answer_all(model, rows, draft_tokens, notify)
        gains = [_on_artifact(model, spread_rows(rows, runs), draft_tokens)]
        used, quantization = model.engine.threads, model.artifact.manifest.quantization
        pieces = model.artifact.manifest.architecture.vocab_size
    if replay:
        assert cache is not None
        gains += _replayed(replay, cache, quantization, used, answered, pieces, runs, draft_tokens)
    tokens, steps = sum(len(a.answer) for a in answered), sum(a.steps for a in answered)
    return SpeculationReport(
        artifact=str(artifact),
        draft_tokens=draft_tokens,
        threads=used,
        rows=len(rows),
        identical=identical,
        tokens_per_step=tokens / steps,
        gains=gains,
        machine=machine_info(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _answer_all(
    model: Model, rows: Sequence[Row], draft_tokens: int, notify: Progress
) -> tuple[list[Answered], int]:
    """Every row's answer with drafts, and how many are plain greedy's."""
    answered, identical = [], 0
    eos = model.artifact.manifest.architecture.eos_token_id
    for done, row in enumerate(rows, 1):
        [ids], _ = model.encode([row.input], fields=row.fields, on_long="truncate")
        plain, drafted = (_generate(model, ids, tokens) for tokens in (0, draft_tokens))
        identical += plain.token_ids == drafted.token_ids
        answer = drafted.token_ids + (eos,) * (drafted.finish_reason == "eos")
        answered.append(Answered(tuple(ids), answer, drafted.steps or len(answer)))
        notify("rows", done, len(rows))
    return answered, identical


def _generate(model: Model, ids: Sequence[int], draft_tokens: int) -> Any:
    return model.generate_tokens(
        ids,
        num_beams=1,
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        prompt_lookup_num_tokens=draft_tokens,
    )


def _on_artifact(model: Model, rows: Sequence[Row], draft_tokens: int) -> Gain:
    encoded = [model.encode([r.input], fields=r.fields, on_long="truncate")[0][0] for r in rows]
    found = [_generate(model, ids, draft_tokens) for ids in encoded]
    tokens = sum(len(f.token_ids) + (f.finish_reason == "eos") for f in found)
    return _compare(
        "this artifact, its data",
        [partial(_generate, model, ids, 0) for ids in encoded],
        [partial(_generate, model, ids, draft_tokens) for ids in encoded],
        tokens / sum(f.steps or len(f.token_ids) for f in found),
    )


def _replayed(
    arch: str,
    cache: Path,
    quantization: str,
    threads: int,
    answered: Sequence[Answered],
    pieces: int,
    runs: int,
    draft_tokens: int,
) -> list[Gain]:
    from edge.bench.engines.shapes import shape_of

    shape = shape_of(arch)
    if pieces > shape.vocab_size:
        raise UsageError(
            f"{arch} has fewer token ids than the artifact: its rows can't be replayed"
        )
    prepared = Prepared.of_shape(arch, cache)
    spec = prepared.artifact(Target("onnx", quantization))
    try:
        prepared.make(spec)
    except (EngineMissingError, EngineFailedError) as error:
        raise EdgeError(f"{arch}: can't be exported: {error}") from error
    player = Replay(spec.cache, threads, shape.eos_token_id)
    ids = Ids(prepared.model, shape)
    rows = [answered[i * len(answered) // runs % len(answered)] for i in range(runs)]
    cases = {
        f"{arch}, the same drafts": [(row.source, row.answer) for row in rows],
        f"{arch}, nothing copied": [_nothing_copied(ids)] * runs,
        f"{arch}, every draft wrong": [_always_wrong(ids)] * runs,
    }
    gains = []
    for what, pairs in cases.items():
        steps = [player.drafted(source, answer, draft_tokens) for source, answer in pairs]
        if what.endswith("the same drafts") and steps != [row.steps for row in rows]:
            raise EdgeError(
                "the replay took other steps than the model: a fault of edge, report it"
            )
        gains.append(
            _compare(
                what,
                [partial(player.plain, s, len(a)) for s, a in pairs],
                [partial(player.drafted, s, a, draft_tokens) for s, a in pairs],
                sum(len(answer) for _, answer in pairs) / sum(steps),
            )
        )
    return gains


def _nothing_copied(ids: Ids) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A source, and an answer without a token of it or one twice."""
    source = ids.of_length(_NOTHING_COPIED[0])
    return source, _fresh(ids, source)[: _NOTHING_COPIED[1]]


def _always_wrong(ids: Ids) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A source with every two tokens of the answer in it, each time followed by a wrong one."""
    length = _NOTHING_COPIED[1]
    *answer, wrong = _fresh(ids, ())[: length + 1]
    source = [wrong]
    for pair in itertools.pairwise(answer):
        source += [*pair, wrong]
    return (*source, ids.eos), tuple(answer)


def _fresh(ids: Ids, source: Sequence[int]) -> tuple[int, ...]:
    """Tokens that are all different, and none of them in `source`."""
    drawn = dict.fromkeys(ids.of_length(8 * sum(_NOTHING_COPIED))[:-1])
    return tuple(token for token in drawn if token not in source)


def _compare(
    what: str,
    plain: Sequence[Callable[[], Any]],
    drafted: Sequence[Callable[[], Any]],
    tokens_per_step: float,
) -> Gain:
    """Time both searches in pairs, the first of a pair taking turns, after a warm-up."""
    for call in (*plain[:3], *drafted[:3]):
        call()
    times = []
    for run, pair in enumerate(zip(plain, drafted, strict=True)):
        order = (0, 1) if run % 2 else (1, 0)
        found = [0.0, 0.0]
        for which in order:
            started = time.perf_counter()
            pair[which]()
            found[which] = (time.perf_counter() - started) * 1000
        times.append(found)
    ratios = sorted(one / other for one, other in times)
    return Gain(
        what=what,
        runs=len(times),
        tokens_per_step=tokens_per_step,
        plain_ms=statistics.median(one for one, _ in times),
        drafted_ms=statistics.median(other for _, other in times),
        ratio=statistics.median(ratios),
        ratio_p5=ratios[len(ratios) // 20],
        ratio_p95=ratios[-1 - len(ratios) // 20],
    )
