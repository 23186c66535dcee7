"""The TorchScript engine.

`torch.jit.load` reads no pickle, but a TorchScript archive is a program: loading an untrusted file
runs untrusted code. Load only files that you exported yourself or verified by hash.

PyTorch has one number of threads and one quantized backend per process. This engine sets the number
of threads before each call if it differs, so that engines with different numbers can share a
process; overlapping calls may then be slower.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edge.runtime.artifact import Artifact
from edge.runtime.engines.base import (
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_threads,
    greedy_hypotheses,
    pad_batch,
)
from edge.runtime.engines.search import DecoderState
from edge.runtime.engines.stepping import SteppingEngine
from edge.runtime.errors import ArtifactError, UnsupportedError, first_line
from edge.runtime.options import GenerationOptions

_MODEL_NAME = "model.ts"
_METHODS = ("encode", "step", "greedy")


class TorchScriptEngine(SteppingEngine):
    """A scripted T5. Greedy search runs inside the script, everything else step by step."""

    format = "torchscript"
    thread_safe = True  # the script keeps no state between calls
    concurrent = True

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Load the model.

        Raises:
            ArtifactError: The file is missing from the manifest, damaged, or another program.
            UnsupportedError: The model is quantized and this PyTorch has no quantized backend.
        """
        self.vocabulary = Vocabulary.of(artifact)
        self._threads = choose_threads(artifact, threads)
        if artifact.manifest.quantization != "float32":
            _choose_backend()
        self._model: Any = _load(artifact)

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start`."""
        return _ScriptState(self._model, *self._inputs(input_ids))

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        if on_token is not None or not options.is_plain_greedy:
            return super().generate(input_ids, options, on_token)
        ids, mask = self._inputs(input_ids)
        with _running():
            tokens, sums, lengths, finished = self._model.greedy(
                ids, mask, options.max_new_tokens, options.min_new_tokens
            )
        return greedy_hypotheses(
            tokens.numpy(), lengths.numpy(), sums.numpy(), finished.numpy(), options.length_penalty
        )

    def _inputs(self, input_ids: Sequence[TokenIds]) -> tuple[torch.Tensor, torch.Tensor]:
        """Set this engine's number of threads; returns ids and mask [batch, length]."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        ids, mask = pad_batch(input_ids, self.vocabulary.pad)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def close(self) -> None:
        """See `Engine.close`."""
        self._model = None


class _ScriptState(DecoderState):
    """The list of tensors that the script's `encode` and `step` return, batch first."""

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._model = model
        with _running():
            self._tensors: list[torch.Tensor] = model.encode(ids, mask)

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        with _running():
            logits, self._tensors = self._model.step(torch.from_numpy(tokens), self._tensors)
        result: np.ndarray = logits.numpy()
        return result

    def reorder(self, rows: np.ndarray) -> None:
        batch = self._tensors[0].size(0)
        if np.array_equal(rows, np.arange(batch)):
            return
        index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        with _running():
            self._tensors = [tensor.index_select(0, index) for tensor in self._tensors]


@contextmanager
def _running() -> Iterator[None]:
    """Disable gradients and the profiling executor.

    Profiling makes the first calls of a script several times slower and later ones no faster: with
    the shape of FLAN-T5-small in 8 bits, 194 and 156 ms for the first two and 30 ms afterwards;
    without it, 31 ms from the first.
    """
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        yield


def _choose_backend() -> None:
    """Select the quantized backend; loading the model packs the weights for it.

    Raises:
        UnsupportedError: This PyTorch has no quantized backend.
    """
    supported = torch.backends.quantized.supported_engines
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    wanted = ("qnnpack", "onednn") if is_arm else ("x86", "fbgemm", "onednn", "qnnpack")
    for name in wanted:
        if name in supported:
            if torch.backends.quantized.engine != name:
                torch.backends.quantized.engine = name
            return
    raise UnsupportedError(
        f"this PyTorch has no backend for 8-bit models (available: {', '.join(supported)}); use a"
        " float32 artifact, or format onnx or ctranslate2"
    )


def _load(artifact: Artifact) -> Any:
    path = artifact.path(_MODEL_NAME)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated upstream; users can't act on it
            model = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise ArtifactError(
            f"{path}: PyTorch {torch.__version__} can't load it as TorchScript"
            f" ({first_line(error)}); copy or export it again"
        ) from error
    missing = [name for name in _METHODS if not hasattr(model, name)]
    if missing:
        raise ArtifactError(f"{path}: method {missing[0]} is missing; export it again")
    return model
