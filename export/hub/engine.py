"""The engine for hub graphs, so that they go through the same parity check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge.export.hub.graphs import DECODER_NAME, DECODER_WITH_PAST_NAME, ENCODER_NAME, MERGED_NAME
from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.base import TokenIds, Vocabulary, pad_batch
from edge.runtime.engines.onnx.engine import open_session
from edge.runtime.engines.search import DecoderState
from edge.runtime.engines.stepping import SteppingEngine

_PAST, _PRESENT = "past_key_values", "present"


class HubEngine(SteppingEngine):
    """Runs the graphs as Optimum and transformers.js do, by the names of inputs and outputs."""

    format = "onnx"

    def __init__(
        self,
        folder: Path,
        shape: Architecture,
        vocabulary: Vocabulary,
        *,
        merged: bool,
        threads: int = 1,
    ) -> None:
        """Open the graphs.

        Args:
            folder: holds the graphs.
            shape: the model's architecture.
            vocabulary: its special tokens.
            merged: use the merged decoder for all steps; else the two separate decoders.
            threads: threads to compute with.
        """
        self.vocabulary = vocabulary
        self._shape = shape
        self._merged = merged
        self._threads = threads
        first, later = (
            (MERGED_NAME, MERGED_NAME) if merged else (DECODER_NAME, DECODER_WITH_PAST_NAME)
        )
        self._sessions = {
            name: open_session(folder / name, threads)
            for name in dict.fromkeys((ENCODER_NAME, first, later))
        }
        self._first, self._later = first, later

    @property
    def threads(self) -> int:
        """The number of threads that the sessions compute with."""
        return self._threads

    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start`."""
        ids, mask = pad_batch(input_ids, self.vocabulary.pad)
        feeds = {"input_ids": ids, "attention_mask": mask}
        [encoded] = self._sessions[ENCODER_NAME].run(["last_hidden_state"], feeds)
        inputs_so_far = {"encoder_hidden_states": encoded, "encoder_attention_mask": mask}
        if self._merged:
            inputs_so_far |= self._dummy_past(len(ids))
        return _HubState(self._sessions[self._first], self._sessions[self._later], inputs_so_far)

    def _dummy_past(self, rows: int) -> dict[str, np.ndarray]:
        # As Optimum's: one position of width d_model // num_heads. NaN shows if it is read.
        shape = self._shape
        dims = (rows, shape.num_heads, 1, shape.d_model // shape.num_heads)
        names = [i.name for i in self._sessions[self._first].get_inputs() if i.name[:4] == "past"]
        return {name: np.full(dims, np.nan, dtype=np.float32) for name in names}

    def close(self) -> None:
        """Close the sessions."""
        self._sessions.clear()


class _HubState(DecoderState):
    """The inputs of the next step: the encoder's output and the past."""

    def __init__(
        self,
        first: ort.InferenceSession,
        later: ort.InferenceSession,
        inputs_so_far: dict[str, np.ndarray],
    ) -> None:
        self._session = first
        self._later = later
        self._inputs = inputs_so_far
        self._started = False

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        inputs = {one.name for one in self._session.get_inputs()}
        known = {**self._inputs, "input_ids": tokens, "use_cache_branch": np.array([self._started])}
        feeds = {name: value for name, value in known.items() if name in inputs}
        names = [one.name for one in self._session.get_outputs()]
        logits, *present = self._session.run(names, feeds)
        for name, value in zip(names[1:], present, strict=True):
            # The keys and values of the cross-attention come from the first step.
            if ".encoder." not in name or not self._started:
                self._inputs[name.replace(_PRESENT, _PAST)] = value
        self._session, self._started = self._later, True
        return np.asarray(logits)

    def reorder(self, rows: np.ndarray) -> None:
        self._inputs = {name: value[rows] for name, value in self._inputs.items()}

    def truncate(self, length: int) -> None:
        for name, value in self._inputs.items():
            if name.startswith(_PAST) and ".encoder." not in name:
                self._inputs[name] = value[:, :, :length]
