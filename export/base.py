"""What an exporter is, and the table of them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edge.export.source import SourceModel
from edge.runtime.errors import UsageError
from edge.runtime.registry import Entry, Registry, unknown_name


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from its source model; docs/parity.md gives the reasons.

    Log-probability errors are absolute differences in nats per token, on the source's own greedy
    answers. `greedy` asks for identical greedy tokens on every parity input; an answer may part
    from the source's only at a tie, where the source itself finds the two tokens equally good to
    within both sides' errors.
    """

    greedy: bool
    max_error: float | None
    mean_error: float

    @property
    def tie(self) -> float:
        """Two tokens that are equally good to within both sides' errors may change places."""
        return 2 * (self.max_error or self.mean_error)


# float32 arithmetic in another order: differences are rounding only.
EXACT = Tolerance(greedy=True, max_error=1e-3, mean_error=1e-3)
HALF = Tolerance(greedy=False, max_error=None, mean_error=0.05)
EIGHT_BIT = Tolerance(greedy=False, max_error=None, mean_error=0.2)
FOUR_BIT = Tolerance(greedy=False, max_error=None, mean_error=0.5)


class Exporter(abc.ABC):
    """Writes the model files of one format. Subclasses only fill an empty folder."""

    format: ClassVar[str]
    # Canonical name → what it means, in the order in which `edge export --help` lists them.
    quantizations: ClassVar[Mapping[str, str]]
    auto: ClassVar[str]  # what `--quantize auto` chooses
    aliases: ClassVar[Mapping[str, str]] = {}  # other names for canonical ones
    tolerances: ClassVar[Mapping[str, Tolerance]]
    # What takes a quantization's place where the model does not bear it.
    finer: ClassVar[Mapping[str, str]] = {}
    supports_shortlist: ClassVar[bool] = False

    @abc.abstractmethod
    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """Write the model files into `folder` (flat, no subfolders).

        Returns settings for the manifest's `runtime` section, such as {"threads": 1}.
        """

    def write_listed(
        self, source: SourceModel, quantization: str, folder: Path, shortlist: Sequence[int]
    ) -> None:
        """Like `write`, with searches that choose among the `shortlist` ids and the input's own.

        Only where `supports_shortlist`.
        """
        raise NotImplementedError

    @classmethod
    def resolve(cls, quantization: str) -> str:
        """The canonical quantization for what the user wrote.

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
            "export",
            ("torch", "safetensors"),
        ),
        "onnx": Entry("edge.export.onnx:OnnxExporter", "export", ("onnx", "onnxruntime")),
        "ctranslate2": Entry(
            "edge.export.ctranslate2:CTranslate2Exporter", "export", ("ctranslate2", "transformers")
        ),
        "gguf": Entry("edge.export.gguf.exporter:GgufExporter", "export", ("gguf", "llama_cpp")),
    },
)
