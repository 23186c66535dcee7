"""The TorchScript engine.

A TorchScript archive is a program, and loading it runs it. The engine loads only files that this
installation exported, by their sha256 (`edge.runtime.artifact.trust`), or that the caller trusts.

PyTorch has one number of threads and one quantized backend per process. This engine sets the number
of threads before each call if it differs, so that engines with different numbers can share a
process; overlapping calls may then be slower.
"""

from __future__ import annotations

import dataclasses
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge.runtime.artifact import Artifact
from edge.runtime.artifact.trust import CODE_FILES, is_recorded
from edge.runtime.engines.base import (
    Hypothesis,
    TokenCallback,
    TokenIds,
    Vocabulary,
    choose_threads,
    pad_batch,
)
from edge.runtime.engines.boundary import check_logits, engine_errors, greedy_hypotheses
from edge.runtime.engines.matcher import Matcher
from edge.runtime.engines.search import DecoderState
from edge.runtime.engines.stepping import SteppingEngine
from edge.runtime.engines.torchscript.archive import check_archive
from edge.runtime.errors import ArtifactError, UnsupportedError
from edge.runtime.options import GenerationOptions

_MODEL_NAME = CODE_FILES["torchscript"]
_LIBRARY = f"PyTorch {torch.__version__}"
_METHODS = ("encode", "step", "greedy")


class TorchScriptEngine(SteppingEngine):
    """A scripted T5. Greedy search runs inside the script, everything else step by step."""

    format = "torchscript"
    thread_safe = True  # the script keeps no state between calls
    concurrent = True

    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Load the model.

        Raises:
            ArtifactError: The file is missing from the manifest, not trusted, damaged, or another
                program.
            UnsupportedError: The model is quantized and this PyTorch has no quantized backend.
        """
        self.vocabulary = Vocabulary.of(artifact)
        self._threads = choose_threads(artifact, threads)
        self._path = artifact.path(_MODEL_NAME)
        quantization = artifact.manifest.quantization
        self._drafts = self.drafts_with(quantization)
        if quantization != "float32":
            _choose_backend()
        self._model: Any = _load(artifact)

    @classmethod
    def drafts_with(cls, quantization: str) -> bool:
        """See `Engine.drafts_with`.

        PyTorch rounds 8-bit activations with one zero point for all tokens of a step, so that other
        tokens in it would change an answer: with drafts, 8 of 997 rows of Disfl-QA.
        """
        return quantization == "float32"

    @property
    def threads(self) -> int:
        """See `Engine.threads`."""
        return self._threads

    def start(self, input_ids: Sequence[TokenIds]) -> DecoderState:
        """See `SteppingEngine.start`."""
        inputs = self._inputs(input_ids)
        return _ScriptState(self._model, *inputs, self.vocabulary.size, self._path)

    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        if not self._drafts:
            options = dataclasses.replace(options, prompt_lookup_num_tokens=0)
        if on_token is not None or matchers is not None or not options.is_plain_greedy:
            return super().generate(input_ids, options, on_token, matchers)
        if options.drafts_from_input and len(input_ids) == 1:
            return super().generate(input_ids, options)
        ids, mask = self._inputs(input_ids)
        with _running(self._path):
            tokens, sums, lengths, finished = self._model.greedy(
                ids, mask, options.max_new_tokens, options.min_new_tokens
            )
            outputs = [one.numpy() for one in (tokens, lengths, sums, finished)]
        return greedy_hypotheses(
            outputs, options, self.vocabulary, rows=len(input_ids), path=self._path
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

    def __init__(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, vocab_size: int, path: Path
    ) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._path = path
        with _running(path):
            self._tensors: list[torch.Tensor] = model.encode(ids, mask)

    def advance(self, tokens: np.ndarray) -> np.ndarray:
        with _running(self._path):
            logits, self._tensors = self._model.step(torch.from_numpy(tokens), self._tensors)
            result: np.ndarray = logits.numpy()
        check_logits(result, (*tokens.shape, self._vocab_size), self._path)
        return result

    def reorder(self, rows: np.ndarray) -> None:
        batch = self._tensors[0].size(0)
        if np.array_equal(rows, np.arange(batch)):
            return
        index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        with _running(self._path):
            self._tensors = [tensor.index_select(0, index) for tensor in self._tensors]

    def truncate(self, length: int) -> None:
        # Of the four tensors of a layer, the last two are self-attention's keys and values.
        for first in range(1, len(self._tensors), 4):
            for place in (first + 2, first + 3):
                self._tensors[place] = self._tensors[place][:, :, :length]


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Disable gradients and the profiling executor, and convert PyTorch's errors.

    Profiling makes the first calls of a script several times slower and later ones no faster: with
    the shape of FLAN-T5-small in 8 bits, 194 and 156 ms for the first two and 30 ms afterwards;
    without it, 31 ms from the first.
    """
    with (
        engine_errors(path, _LIBRARY),
        torch.inference_mode(),
        torch.jit.optimized_execution(False),
    ):
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
    _check_trust(artifact, path)
    check_archive(path)
    with engine_errors(path, _LIBRARY, loading=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated upstream; users can't act on it
        model = torch.jit.load(str(path), map_location="cpu").eval()
    missing = [name for name in _METHODS if not hasattr(model, name)]
    if missing:
        raise ArtifactError(f"{path}: method {missing[0]} is missing; export it again")
    return model


def _check_trust(artifact: Artifact, path: Path) -> None:
    """Refuse code that neither the caller nor the record of exports trusts.

    Raises:
        ArtifactError: The file is not trusted, or altered.
    """
    if artifact.trust_code or is_recorded(path):
        return
    artifact.check_hashes()  # a damaged copy needs another copy, not trust
    raise ArtifactError(
        f"{path} is TorchScript, which runs code when it is loaded, and was not exported by this"
        " user on this machine: if you trust its author, use --trust-code (in Python:"
        " trust_code=True); else use an onnx, ctranslate2 or gguf artifact"
    )
