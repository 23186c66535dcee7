"""Cache of models, artifacts and conversions that the engine benchmark keeps between runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import edge.bench.engines.shapes
import edge.export
from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.baselines.table import BASELINES, EDGE
from edge.bench.engines.process import prepare
from edge.bench.engines.shapes import shape_of, write_model
from edge.export.base import EXPORTERS
from edge.export.publish import Target
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.errors import UsageError

# What `edge bench-engines` makes by default.
DEFAULT_TARGETS = (
    Target("onnx", "int8"),
    Target("onnx", "int4"),
    Target("ctranslate2", "int8"),
    Target("gguf", "q8_0"),
    Target("torchscript", "int8"),
)


def default_cache() -> Path:
    """`edge/bench` in XDG_CACHE_HOME or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge" / "bench"


def choose_targets(formats: Sequence[str], quantizations: Sequence[str]) -> list[Target]:
    """The artifacts that `--format` and `--quantize` ask for; DEFAULT_TARGETS without either.

    A quantization without a format means every format that has it.

    Raises:
        UsageError: an unknown format, or a quantization that one of the formats named (or, without
            a format, every one) lacks.
        MissingExtraError: a format's library is not installed.
    """
    if not formats and not quantizations:
        return list(DEFAULT_TARGETS)
    targets = []
    for quantization in quantizations or ("auto",):
        found, refusals = [], []
        for name in formats or EXPORTERS.names():
            try:
                found.append(Target(name, EXPORTERS.load(name).resolve(quantization)))
            except UsageError as error:
                refusals.append(error)
        if refusals and (formats or not found):
            raise refusals[0]
        targets += found
    return list(dict.fromkeys(targets))


def bits_of(quantization: str) -> int:
    """Bits of a decoder weight: the first number in a quantization's name."""
    found = re.search(r"\d+", quantization)
    assert found, quantization
    return int(found[0])


@dataclass(frozen=True)
class Prepared:
    """A model, and what is made from it for each engine.

    Attributes:
        home: the folder of everything that is made from the model.
        model: the Hugging Face model folder.
    """

    home: Path
    model: Path

    @classmethod
    def of_shape(cls, arch: str, cache: Path, tokenizer_json: Path | None = None) -> Prepared:
        """The model of a shape with random weights, written at its first use.

        Raises:
            UsageError: an unknown shape, or see `write_model`.
            ArtifactError: `tokenizer_json` is not a tokenizer.
        """
        shape = shape_of(arch)
        made_from = [Path(edge.bench.engines.shapes.__file__)]
        if tokenizer_json is not None:
            made_from.append(tokenizer_json)
        home = cache / f"{arch}-{_digest(made_from)}"
        model = home / "model"
        if not model.is_dir():
            write_model(shape, model, tokenizer_json=tokenizer_json)
        return cls(home, model)

    @classmethod
    def of_model(cls, source: SourceModel, cache: Path) -> Prepared:
        """An existing model; the hash of its weights identifies what is made from it.

        Raises:
            UsageError: it has no tokenizer.json.
        """
        if not (source.folder / TOKENIZER_NAME).is_file():
            raise UsageError(
                f"{source.folder} has no {TOKENIZER_NAME}. Save it there with"
                " transformers.AutoTokenizer, or use a model folder that edge train wrote."
            )
        home = cache / f"{source.name.replace('/', '--')}-{source.weights_sha256[:8]}"
        home.mkdir(parents=True, exist_ok=True)
        return cls(home, source.folder)

    def artifact(self, target: Target, threads: int = 1) -> Spec:
        """The process of an edge artifact; a change of the exporters' code makes a new one."""
        exporters = sorted(Path(next(iter(edge.export.__path__))).rglob("*.py"))
        cache = self.home / f"{target.name}-{_digest(exporters)}"
        return Spec(EDGE, self.model, cache, self.home, threads, target.name)

    def baseline(self, name: str, threads: int = 1) -> Spec:
        """The process of a baseline, a name of `BASELINES`."""
        base = self._baselines / (BASELINES[name].made_from or name)
        return Spec(name, self.model, self._baselines / name, base, threads)

    @property
    def _baselines(self) -> Path:
        return self.home / "baselines"

    def make(self, spec: Spec) -> None:
        """Convert the model for an engine if that is not done yet, and what it is made from.

        Raises:
            EngineMissingError: a library of the engine is not installed.
            EngineFailedError: the conversion failed.
        """
        if spec.engine != EDGE:
            self._baselines.mkdir(parents=True, exist_ok=True)
            if base := BASELINES[spec.engine].made_from:
                self.make(self.baseline(base))
        if not spec.cache.exists():
            prepare(spec)
            self._delete_older(spec)

    def _delete_older(self, spec: Spec) -> None:
        """Delete what earlier versions of the exporters made for the same target."""
        if spec.engine != EDGE:
            return
        made = re.compile(rf"{re.escape(spec.target)}-[0-9a-f]{{8}}")
        for folder in self.home.iterdir():
            if made.fullmatch(folder.name) and folder != spec.cache:
                shutil.rmtree(folder, ignore_errors=True)


def size_of(spec: Spec) -> int:
    """Bytes of what the engine loads: its conversion, or the model folder without one."""
    folder = spec.cache if spec.cache.is_dir() else spec.model
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _digest(files: Sequence[Path]) -> str:
    joined = hashlib.sha256()
    for file in files:
        joined.update(file.read_bytes())
    return joined.hexdigest()[:8]
