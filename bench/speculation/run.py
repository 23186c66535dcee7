"""Speedup of speculative decoding: on an artifact and its data, and replayed on a larger shape."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.bench.engines.cache import Prepared
from edge.bench.engines.random_ids import RandomIds
from edge.bench.engines.shapes import shape_of
from edge.bench.speculation.gain import DRAFT_TOKENS, gain_on_rows, greedy_answer, timed_gain
from edge.bench.speculation.random_head import edited_inputs, with_random_head
from edge.bench.speculation.replay import GraphReplay, Replay
from edge.bench.speculation.results import Gain, SpeculationReport
from edge.bench.speculation.stepping_replay import SteppingReplay
from edge.bench.timing.latency import MIN_RUNS, check_runs
from edge.bench.timing.line_process import EngineProcessError
from edge.bench.timing.machine import machine_info
from edge.export.publish import Target
from edge.runtime.errors import EdgeError, UnsupportedError, UsageError
from edge.runtime.generation import Generation
from edge.runtime.model import Model, load
from edge.runtime.rows import Row

Progress = Callable[[str, int, int], None]  # (phase, done, total)

_INPUT_TOKENS, _NEW_TOKENS = 32, 16  # of the artificial cases, as in the engine benchmark


@dataclass(frozen=True)
class Answered:
    """A row's source ids, and its answer with drafts."""

    source: tuple[int, ...]
    answer: Generation

    @property
    def steps(self) -> int:
        """Decoder steps that the answer took."""
        return self.answer.steps or self.answer.output_tokens

    def script(self, eos: int) -> tuple[int, ...]:
        """The answer's token ids, with the end token that another shape stops at."""
        return self.answer.token_ids + (eos,) * len(self.answer.end_token_ids)


def run_speculation(
    artifact: Path,
    rows: Sequence[Row],
    *,
    draft_tokens: int = DRAFT_TOKENS,
    replay: str | None = None,
    cache: Path | None = None,
    runs: int = MIN_RUNS,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> SpeculationReport:
    """Compare greedy search with and without drafts on `rows`, one at a time.

    Args:
        artifact: an artifact whose engine supports drafts from the input (onnx, gguf, torchscript
            float32).
        rows: the inputs.
        draft_tokens: the longest draft.
        replay: the name of a shape; the same rows' drafts are replayed on it (see
            `edge.bench.speculation.replay`) at the artifact's quantization, and so are cases where
            drafts never help.
        cache: where the shape's model and artifact are kept; needed with `replay`.
        runs: timed pairs of each comparison.
        threads: that the engine computes with; None takes the artifact's setting.
        on_progress: called with phase, done and total.

    Raises:
        UnsupportedError: the artifact's engine has no drafts.
        UsageError: too few runs, an unknown shape, or one with a smaller vocabulary than the
            artifact's.
    """
    check_runs(runs)
    notify = on_progress or (lambda *_: None)
    with load(artifact, threads=threads) as model:
        if not model.drafts_from_input:
            raise UnsupportedError(
                f"{artifact}: {model.engine.format} has no drafts from the input in"
                f" {model.artifact.manifest.quantization}; use an onnx or gguf artifact"
            )
        answered, identical = _answer_all(model, rows, draft_tokens, notify)
        gains = [gain_on_rows(model, rows, runs, draft_tokens)]
        used, manifest = model.engine.threads, model.artifact.manifest
        target = Target(manifest.format, manifest.quantization)
        pieces = model.artifact.manifest.architecture.vocab_size
    if replay:
        assert cache is not None
        spread = [answered[i * len(answered) // runs % len(answered)] for i in range(runs)]
        edited = None
        if target.format == "onnx":
            edited = edited_inputs(artifact, [row.source for row in spread], used)
        gains += _replayed(replay, cache, target, used, spread, edited, pieces, draft_tokens)
    tokens, steps = sum(a.answer.output_tokens for a in answered), sum(a.steps for a in answered)
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
    """Every row's answer with drafts, and how many equal those of plain greedy search."""
    answered, identical = [], 0
    for done, row in enumerate(rows, 1):
        [ids], _ = model.encode([row.input], fields=row.fields, on_long="truncate")
        plain, drafted = (greedy_answer(model, ids, tokens) for tokens in (0, draft_tokens))
        identical += plain.token_ids == drafted.token_ids
        answered.append(Answered(tuple(ids), drafted))
        notify("rows", done, len(rows))
    return answered, identical


def _replayed(
    arch: str,
    cache: Path,
    target: Target,
    threads: int,
    rows: Sequence[Answered],
    edited: Sequence[tuple[int, ...]] | None,
    pieces: int,
    draft_tokens: int,
) -> list[Gain]:
    shape = shape_of(arch)
    if pieces > shape.vocab_size:
        raise UsageError(
            f"{arch} has fewer token ids than the artifact, so the rows can't be replayed on it."
            " Use a larger shape."
        )
    prepared = Prepared.of_shape(arch, cache)
    if edited is not None:
        prepared = with_random_head(prepared)
    spec = prepared.artifact(target)
    try:
        prepared.make(spec)
    except EngineProcessError as error:
        raise EdgeError(f"{arch} can't be exported: {error}") from error
    player = _player(spec.cache, target.format, threads, shape.eos_token_id)
    ids = RandomIds(prepared.model, shape)
    runs = len(rows)
    cases = {
        f"{arch}, the same drafts": [(row.source, row.script(shape.eos_token_id)) for row in rows],
        f"{arch}, nothing copied": [_nothing_copied(ids)] * runs,
        f"{arch}, every draft wrong": [_always_wrong(ids)] * runs,
    }
    gains = []
    for what, pairs in cases.items():
        same = what.endswith("the same drafts")
        # In the other cases the head keeps all of the source, which is wrong.
        texts: Sequence[tuple[int, ...] | None] = [None] * runs
        if edited is not None:
            texts = edited if same else [source for source, _ in pairs]
        drafted = [
            partial(player.drafted, source, answer, draft_tokens, text)
            for (source, answer), text in zip(pairs, texts, strict=True)
        ]
        steps = [call() for call in drafted]
        if same and steps != [row.steps for row in rows]:
            raise EdgeError(
                "the replay took other decoder steps than the model. This is a bug of edge: please"
                " report it."
            )
        gains.append(
            timed_gain(
                what,
                [partial(player.plain, s, len(a)) for s, a in pairs],
                drafted,
                sum(len(answer) for _, answer in pairs) / sum(steps),
            )
        )
    player.close()
    return gains


def _player(folder: Path, format_name: str, threads: int, eos: int) -> Replay:
    if format_name == "onnx":
        return GraphReplay(folder, threads, eos)
    return SteppingReplay(folder, threads)


def _nothing_copied(ids: RandomIds) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A source, and an answer that shares no token with it and repeats none."""
    source = ids.of_length(_INPUT_TOKENS)
    return source, _distinct(ids, source)[:_NEW_TOKENS]


def _always_wrong(ids: RandomIds) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A source with every two consecutive tokens of the answer, each pair before a wrong token."""
    *answer, wrong = _distinct(ids, ())[: _NEW_TOKENS + 1]
    source = [wrong]
    for pair in itertools.pairwise(answer):
        source += [*pair, wrong]
    return (*source, ids.eos), tuple(answer)


def _distinct(ids: RandomIds, source: Sequence[int]) -> tuple[int, ...]:
    """Distinct tokens, none of them in `source`."""
    drawn = dict.fromkeys(ids.of_length(8 * (_INPUT_TOKENS + _NEW_TOKENS))[:-1])
    return tuple(token for token in drawn if token not in source)
