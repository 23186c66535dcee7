"""The ONNX engine, on ONNX Runtime.

Greedy search is a single graph (`model.onnx`: encoder and a loop of decoder steps), as is greedy
search with drafts from the input (`speculative.onnx`). Everything else (beams, sampling, penalties,
streaming, scoring) steps through `encoder.onnx` and `decoder.onnx`. If a shortlist restricts these,
scores come from `scoring.onnx`, a decoder with the whole head. All graphs share the weights in
`model.onnx` and are opened on first use.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import (
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_setting,
    choose_threads,
    pad_batch,
)
from edge.runtime.engines.boundary import check_logits, engine_errors, greedy_hypotheses
from edge.runtime.engines.matcher import Matcher
from edge.runtime.engines.onnx.graph_reader import check_graph
from edge.runtime.engines.onnx.library import check_version, ort
from edge.runtime.engines.search import DecoderState
from edge.runtime.engines.stepping import SteppingEngine
from edge.runtime.errors import ArtifactError, UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.memory import give_back_free_memory

_GREEDY, _SPECULATIVE = "model.onnx", "speculative.onnx"
_ENCODER, _DECODER, _SCORING = "encoder.onnx", "decoder.onnx", "scoring.onnx"
_LIBRARY = f"ONNX Runtime {ort.__version__}"


class OnnxEngine(SteppingEngine):
    """The graphs of one artifact, each in a separate ONNX Runtime session."""

    format = "onnx"
    thread_safe = True
    concurrent = True
    settings: ClassVar[Mapping[str, tuple[Any, ...]]] = {"spinning": (True, False)}

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Open the graph of greedy search.

        Raises:
            UnsupportedError: ONNX Runtime is too old.
            ArtifactError: ONNX Runtime can't load the graph, or a setting is invalid.
        """
        check_version(ort.__version__)
        self.vocabulary = Vocabulary.of(artifact)
        self._artifact = artifact
        self._shape = artifact.manifest.architecture
        self._threads = choose_threads(artifact, threads)
        self._spinning = choose_setting(artifact, "spinning", self.settings["spinning"])
        self._lock = threading.Lock()
        self._closed = False
        self._graphs: dict[str, ort.InferenceSession] = {}
        self._graph(_GREEDY)

    def _graph(self, name: str) -> ort.InferenceSession:
        """The graph of a file, loaded on first use.

        Raises:
            ArtifactError: ONNX Runtime can't load it.
            UsageError: The engine is closed.
        """
        with self._lock:
            if self._closed:
                raise UsageError("the engine is closed")
            if name not in self._graphs:
                self._graphs[name] = self._open(name)
            return self._graphs[name]

    def _open(self, name: str) -> ort.InferenceSession:
        check_graph(self._artifact, name)
        return open_session(self._artifact.path(name), self._threads, spinning=self._spinning)

    @classmethod
    def tunable(cls, threads: Sequence[int]) -> list[dict[str, Any]]:
        """See `Engine.tunable`. Spinning matters only with a second thread."""
        return [
            {"threads": number, "spinning": spinning}
            for number in threads
            for spinning in ((True, False) if number > 1 else (True,))
        ]

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        if on_token is not None or matchers is not None or not options.is_plain_greedy:
            return super().generate(input_ids, options, on_token, matchers)
        if options.drafts_from_input and len(input_ids) == 1:
            return [[self._speculate(input_ids, options)]]
        feeds = self._feeds(input_ids, options)
        names = ["tokens", "lengths", "log_probs", "finished"]
        outputs = self._run(_GREEDY, names, feeds)
        return self._hypotheses(_GREEDY, outputs, options, len(input_ids))

    def prepare(self, options: GenerationOptions) -> None:
        """See `Engine.prepare`."""
        if options.drafts_from_input and options.is_plain_greedy:
            self._graph(_SPECULATIVE)

    def _speculate(self, input_ids: Sequence[TokenIds], options: GenerationOptions) -> Hypothesis:
        """Greedy search of one row with drafts from the input; the answer is the same."""
        feeds = self._feeds(input_ids, options)
        feeds["draft_tokens"] = np.array(options.prompt_lookup_num_tokens)
        names = ["tokens", "log_probs", "finished", "steps"]
        tokens, log_probs, finished, steps = self._run(_SPECULATIVE, names, feeds)
        if steps.size != 1 or steps.dtype.kind not in "iu" or tokens.ndim != 2:
            path = self._artifact.path(_SPECULATIVE)
            raise ArtifactError(f"{path}: it computes outputs of other shapes; export it again")
        outputs = [tokens, np.array([tokens.shape[1]]), log_probs, finished]
        [[found]] = self._hypotheses(_SPECULATIVE, outputs, options, 1)
        return dataclasses.replace(found, steps=int(steps.item()))

    def _run(
        self, name: str, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        """Run a whole graph.

        Raises:
            EdgeError: ONNX Runtime failed.
        """
        graph = self._graph(name)
        with engine_errors(self._artifact.path(name), _LIBRARY):
            # A graph may declare outputs that are not arrays.
            return [np.asarray(value) for value in graph.run(outputs, feeds)]

    def _hypotheses(
        self, name: str, outputs: list[np.ndarray], options: GenerationOptions, rows: int
    ) -> list[list[Hypothesis]]:
        path = self._artifact.path(name)
        return greedy_hypotheses(outputs, options, self.vocabulary, rows=rows, path=path)

    def _feeds(
        self, input_ids: Sequence[TokenIds], options: GenerationOptions
    ) -> dict[str, np.ndarray]:
        ids, mask = pad_batch(input_ids, self.vocabulary.pad)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "max_new_tokens": np.array(options.max_new_tokens),
            "min_new_tokens": np.array(options.min_new_tokens),
        }

    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start`."""
        return self._start(input_ids, _DECODER)

    def start_scoring(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start_scoring`."""
        # With a shortlist, decoder.onnx has no logits for ids outside it.
        restricted = _SCORING in self._artifact.manifest.files
        return self._start(input_ids, _SCORING if restricted else _DECODER)

    def _start(self, input_ids: Sequence[TokenIds], decoder_name: str) -> DecoderState:
        encoder, decoder = self._graph(_ENCODER), self._graph(decoder_name)
        path = self._artifact.path(decoder_name)
        ids, mask = pad_batch(input_ids, self.vocabulary.pad)
        taken = {value.name for value in decoder.get_inputs()}
        names = [value.name for value in encoder.get_outputs() if value.name in taken]
        feeds = {"input_ids": _value(ids), "attention_mask": _value(mask)}
        with engine_errors(self._artifact.path(_ENCODER), _LIBRARY):
            cross = encoder.run_with_ort_values(names, feeds)
            values = dict(zip(names, cross, strict=True)) | {"encoder_attention_mask": _value(mask)}
        shape = self._shape
        empty = np.zeros((len(ids), shape.num_heads, 0, shape.d_kv), dtype=np.float32)
        past = {
            f"past_{kind}_{layer}": _value(empty)
            for layer in range(shape.num_decoder_layers)
            for kind in ("key", "value")
        }
        return _OnnxState(decoder, values, past, self.vocabulary.size, path)

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._closed = True
            self._graphs.clear()


def open_session(path: Path, threads: int, *, spinning: bool = True) -> ort.InferenceSession:
    """Open a graph as a session on the CPU.

    Args:
        path: The ONNX file.
        threads: Number of intra-op threads.
        spinning: Whether threads that wait for work spin; if not, they sleep and free the core.

    Raises:
        ArtifactError: ONNX Runtime can't load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # Never the other format that ONNX Runtime reads, whatever the file begins with.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Sessions whose pools spin between calls would compete for the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with engine_errors(path, _LIBRARY, loading=True):
        opened = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    give_back_free_memory()  # the file as read, and the unpacked weights
    return opened


class _OnnxState(DecoderState):
    """The caches of one batch, kept as OrtValues between steps."""

    def __init__(
        self,
        decoder: ort.InferenceSession,
        encoded: dict[str, ort.OrtValue],
        past: dict[str, ort.OrtValue],
        vocab_size: int,
        path: Path,
    ) -> None:
        self._decoder = decoder
        self._vocab_size = vocab_size
        self._path = path
        self._encoded = encoded
        self._past = past
        self._outputs = ["logits", *(name.replace("past", "present") for name in past)]

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        feeds = {"decoder_input_ids": _value(tokens), **self._encoded, **self._past}
        with engine_errors(self._path, _LIBRARY):
            logits, *present = self._decoder.run_with_ort_values(self._outputs, feeds)
            self._past = dict(zip(self._past, present, strict=True))
            result: np.ndarray = logits.numpy()
        check_logits(result, (*tokens.shape, self._vocab_size), self._path)
        return result

    def reorder(self, rows: np.ndarray) -> None:
        with engine_errors(self._path, _LIBRARY):
            self._encoded = _take(self._encoded, rows)
            self._past = _take(self._past, rows)

    def truncate(self, length: int) -> None:
        self._past = {
            name: _value(np.ascontiguousarray(value.numpy()[:, :, :length]))
            for name, value in self._past.items()
        }


def _value(array: np.ndarray) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(array)


def _take(values: dict[str, ort.OrtValue], rows: np.ndarray) -> dict[str, ort.OrtValue]:
    return {name: _value(value.numpy()[rows]) for name, value in values.items()}
