"""The exporter interface and the registry of formats."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edge.export.source import SourceModel
from edge.export.tolerance import Tolerance
from edge.runtime.errors import ModelError, UsageError
from edge.runtime.registry import Entry, Registry, unknown_name


class Exporter(abc.ABC):
    """Writes the model files of one format.

    An exporter only fills an empty folder. It reads weights, config and tokenizer through the
    `SourceModel` that it is given, never from the model's folder: the weights may not be those on
    disk (see `Publisher.source_for`).

    Attributes:
        format: the name of the format, as in the registry.
        quantizations: canonical name → description, in the order of `edge export --help`.
        full_precision: the names among them that keep weights in 16 or 32-bit floats.
        auto: the quantization that `auto` stands for.
        candidates: what `auto` chooses from where the model is calibrated, smallest first.
        for_batches: canonical names that pay in batches only; searches for one input skip them.
        aliases: other names → canonical names.
        tolerances: canonical name → parity tolerance.
        higher_precision: canonical name → the quantization to export instead if the parity check
            fails.
        supports_shortlist: whether `write_with_shortlist` is implemented.
        supports_bias_per_layer: whether umT5 can be written, whose layers have separate biases.
    """

    format: ClassVar[str]
    quantizations: ClassVar[Mapping[str, str]]
    full_precision: ClassVar[Collection[str]]
    auto: ClassVar[str]
    candidates: ClassVar[Sequence[str]] = ()
    for_batches: ClassVar[Collection[str]] = ()
    aliases: ClassVar[Mapping[str, str]] = {}
    tolerances: ClassVar[Mapping[str, Tolerance]]
    higher_precision: ClassVar[Mapping[str, str]] = {}
    supports_shortlist: ClassVar[bool] = False
    supports_bias_per_layer: ClassVar[bool] = False

    @abc.abstractmethod
    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """Write the model files.

        Args:
            source: the model to export.
            quantization: a canonical name.
            folder: an empty folder; files go directly into it, without subfolders.

        Returns:
            Settings for the manifest's `runtime` section, such as {"threads": 1}.
        """

    def write_with_shortlist(
        self, source: SourceModel, quantization: str, folder: Path, shortlist: Sequence[int]
    ) -> None:
        """Like `write`, with searches restricted to the `shortlist` ids and those of the input.

        Only if `supports_shortlist`.
        """
        raise NotImplementedError

    @classmethod
    def draft_record(cls, source: SourceModel) -> dict[str, Any]:
        """The manifest's record of the draft head that `write` includes; empty if it does not."""
        return {}

    @classmethod
    def is_quantized(cls, quantization: str) -> bool:
        """Whether a quantization keeps weights in integers."""
        return quantization not in cls.full_precision

    @classmethod
    def notes(cls, source: SourceModel, quantization: str) -> tuple[str, ...]:
        """What a user should know about an artifact of the model, one line each."""
        return ()

    @classmethod
    def check_architecture(cls, source: SourceModel) -> None:
        """Reject a model that the format can't express.

        Raises:
            ModelError: it has separate position biases, and the format does not.
        """
        if source.architecture.has_bias_per_layer and not cls.supports_bias_per_layer:
            raise ModelError(f"{source.name}: umT5 works with --format onnx alone")

    @classmethod
    def resolve(cls, quantization: str) -> str:
        """The canonical name of a quantization: `auto` and aliases resolved, case ignored.

        Raises:
            UsageError: this format has no such quantization.
        """
        name = quantization.lower()
        if name == "auto":
            return cls.auto
        name = cls.aliases.get(name, name)
        if name not in cls.quantizations:
            known = ("auto", *cls.quantizations, *cls.aliases)
            raise UsageError(unknown_name(f"{cls.format} quantization", quantization, known))
        return name


EXPORTERS: Registry[Exporter] = Registry(
    "format",
    "edge.export.base:Exporter",
    {
        "torchscript": Entry(
            "edge.export.torchscript.exporter:TorchScriptExporter",
            "export-torchscript",
            ("torch", "safetensors"),
        ),
        "onnx": Entry("edge.export.onnx:OnnxExporter", "export-onnx", ("onnx", "onnxruntime")),
        "ctranslate2": Entry(
            "edge.export.ctranslate2:CTranslate2Exporter",
            "export-ctranslate2",
            ("ctranslate2", "transformers"),
        ),
        "gguf": Entry(
            "edge.export.gguf.exporter:GgufExporter", "export-gguf", ("gguf", "llama_cpp")
        ),
    },
)
