"""The ONNX engine: encoder and decoder graphs under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import TokenIds, Vocabulary, choose_threads, pad_batch
from edge.runtime.engines.stepping import DecoderState, SteppingEngine
from edge.runtime.errors import ArtifactError, UsageError


class OnnxEngine(SteppingEngine):
    """Runs `encoder.onnx` once per input and `decoder.onnx` once per step."""

    format = "onnx"
    thread_safe = True

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        self.vocabulary = Vocabulary.of(artifact)
        self._shape = artifact.manifest.architecture
        self._threads = choose_threads(artifact, threads)
        self._encoder: ort.InferenceSession | None = self._open(artifact, "encoder.onnx")
        self._decoder: ort.InferenceSession | None = self._open(artifact, "decoder.onnx")

    def _open(self, artifact: Artifact, name: str) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Two graphs with pools that spin between calls would take the cores from each other.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        artifact.path("weights.bin")
        try:
            return ort.InferenceSession(
                str(artifact.path(name)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class of theirs
            reason = str(error).strip().splitlines()[0]
            raise ArtifactError(
                f"{artifact.folder / name}: ONNX Runtime {ort.__version__} can't load it ({reason})"
            ) from error

    @property
    def threads(self) -> int:
        return self._threads

    def start(self, input_ids: Sequence[TokenIds]) -> OnnxState:
        if self._encoder is None or self._decoder is None:
            raise UsageError("the engine is closed")
        ids, mask = pad_batch(input_ids, self.vocabulary.pad)
        names = [output.name for output in self._encoder.get_outputs()]
        feeds = {"input_ids": _value(ids), "attention_mask": _value(mask)}
        cross = self._encoder.run_with_ort_values(names, feeds)
        values = dict(zip(names, cross, strict=True)) | {"encoder_attention_mask": _value(mask)}
        shape = self._shape
        empty = np.zeros((len(ids), shape.num_heads, 0, shape.d_kv), dtype=np.float32)
        past = {
            f"past_{kind}_{layer}": _value(empty)
            for layer in range(shape.num_decoder_layers)
            for kind in ("key", "value")
        }
        return OnnxState(self._decoder, values, past)

    def close(self) -> None:
        self._encoder = self._decoder = None


class OnnxState(DecoderState):
    """The caches of one batch, kept as ONNX Runtime's own values between steps."""

    def __init__(
        self,
        decoder: ort.InferenceSession,
        encoded: dict[str, ort.OrtValue],
        past: dict[str, ort.OrtValue],
    ) -> None:
        self._decoder = decoder
        self._encoded = encoded
        self._past = past
        self._outputs = ["logits", *(name.replace("past", "present") for name in past)]

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        feeds = {"decoder_input_ids": _value(tokens), **self._encoded, **self._past}
        logits, *present = self._decoder.run_with_ort_values(self._outputs, feeds)
        self._past = dict(zip(self._past, present, strict=True))
        return logits.numpy()

    def reorder(self, rows: np.ndarray) -> None:
        self._encoded = _take(self._encoded, rows)
        self._past = _take(self._past, rows)


def _value(array: np.ndarray) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(array)


def _take(values: dict[str, ort.OrtValue], rows: np.ndarray) -> dict[str, ort.OrtValue]:
    return {name: _value(value.numpy()[rows]) for name, value in values.items()}
