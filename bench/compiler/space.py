"""The search space: artifacts (format, quantization, shortlist) and the ways to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.bench.engines.cache import bits_of
from edge.bench.speculation.gain import DRAFT_TOKENS
from edge.export.base import EXPORTERS, Exporter
from edge.runtime.engines import ENGINES
from edge.runtime.errors import MissingExtraError, UsageError


@dataclass(frozen=True, order=True)
class ArtifactSpec:
    """An artifact that can be exported."""

    format: str
    quantization: str
    shortlist: bool = False

    @property
    def name(self) -> str:
        """Format and quantization, as in `onnx-int8-shortlist`."""
        return f"{self.format}-{self.quantization}{'-shortlist' if self.shortlist else ''}"


@dataclass(frozen=True)
class Candidate:
    """An artifact and a way to run it.

    `threads` and `settings` are the engine's; `draft_tokens` is the longest draft from the input,
    0 for none.
    """

    spec: ArtifactSpec
    threads: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    draft_tokens: int = 0

    @property
    def name(self) -> str:
        """A unique, readable name that is valid as a file name."""
        parts = [self.spec.name, f"threads{self.threads}"]
        parts += [f"{name}-{str(value).lower()}" for name, value in self.settings.items()]
        if self.draft_tokens:
            parts.append(f"drafts{self.draft_tokens}")
        return "_".join(parts)

    @property
    def simplicity(self) -> tuple[int, int, int]:
        """A sort key among equally fast candidates: the simplest first."""
        return self.threads, self.draft_tokens, int(self.spec.shortlist)

    def __hash__(self) -> int:
        return hash(self.name)

    def as_json(self) -> dict[str, Any]:
        """The candidate in the report and in a worker's argument."""
        return {
            "format": self.spec.format,
            "quantization": self.spec.quantization,
            "shortlist": self.spec.shortlist,
            "threads": self.threads,
            "settings": dict(self.settings),
            "draft_tokens": self.draft_tokens,
        }


@dataclass(frozen=True)
class Space:
    """All combinations that may be tried.

    Attributes:
        quantizations: by format; the first is that of `auto`.
        threads: numbers of threads.
        shortlist: whether there is data for vocabulary shortlists.
        drafts: whether to try drafts from the input.
    """

    quantizations: Mapping[str, Sequence[str]]
    threads: Sequence[int]
    shortlist: bool
    drafts: bool

    @property
    def formats(self) -> list[str]:
        """The formats, in the order they are tried."""
        return list(self.quantizations)

    def default(self, format_name: str) -> ArtifactSpec:
        """The artifact that represents a format before its other quantizations are exported."""
        return ArtifactSpec(format_name, self.quantizations[format_name][0])

    def specs(self, format_name: str) -> list[ArtifactSpec]:
        """The artifacts of a format without shortlists, that of `default` first."""
        return [ArtifactSpec(format_name, name) for name in self.quantizations[format_name]]

    def with_shortlist(self, spec: ArtifactSpec) -> ArtifactSpec | None:
        """The same artifact with a shortlist; None if the format or the data has none."""
        if not self.shortlist or not EXPORTERS.load(spec.format).supports_shortlist:
            return None
        return ArtifactSpec(spec.format, spec.quantization, shortlist=True)

    def candidates(self, spec: ArtifactSpec) -> list[Candidate]:
        """Every way to run an artifact, the plainest first."""
        engine = ENGINES.load(spec.format)
        drafts = self.drafts and engine.drafts_with(spec.quantization)
        lengths = (0, DRAFT_TOKENS) if drafts else (0,)
        return [
            Candidate(
                spec,
                settings["threads"],
                {name: value for name, value in settings.items() if name != "threads"},
                tokens,
            )
            for settings in engine.tunable(self.threads)
            for tokens in lengths
        ]

    def all_candidates(self) -> list[Candidate]:
        """Every combination."""
        plain = [spec for name in self.formats for spec in self.specs(name)]
        shortlisted = [one for spec in plain if (one := self.with_shortlist(spec))]
        return [one for spec in (*plain, *shortlisted) for one in self.candidates(spec)]

    def as_json(self) -> dict[str, Any]:
        """The space in the report."""
        return {
            "quantizations": {name: list(found) for name, found in self.quantizations.items()},
            "threads": list(self.threads),
            "shortlist": self.shortlist,
            "drafts": self.drafts,
            "combinations": len(self.all_candidates()),
        }


def find_quantizations(
    formats: Sequence[str], quantizations: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The formats and quantizations that can be exported here.

    Args:
        formats: names; empty for all.
        quantizations: names, each for every format that has it; empty for all but those for
            batches.

    Returns:
        Format → quantizations, and format → the reason why it is skipped.

    Raises:
        UsageError: an unknown format, or a quantization that none of the formats has.
        MissingExtraError: none of the formats' libraries is installed.
    """
    found: dict[str, list[str]] = {}
    skipped: dict[str, str] = {}
    missing: MissingExtraError | None = None
    unknown: dict[str, UsageError] = {}
    for name in dict.fromkeys(formats or EXPORTERS.names()):
        try:
            exporter = EXPORTERS.load(name)
            ENGINES.load(name)
        except MissingExtraError as error:
            skipped[name], missing = str(error), error
            continue
        every = (exporter.auto, *_by_bits(exporter))
        names = []
        for asked in quantizations or every:
            try:
                names.append(exporter.resolve(asked))
            except UsageError as error:
                unknown.setdefault(asked, error)
        if names:
            found[name] = list(dict.fromkeys(names))
    if not found:
        raise missing or next(iter(unknown.values()))
    known = {name for one in found for name in (*quantizations,) if _has(one, name)}
    for asked, refusal in unknown.items():
        if asked not in known:
            raise refusal
    return found, skipped


def _has(format_name: str, quantization: str) -> bool:
    try:
        EXPORTERS.load(format_name).resolve(quantization)
    except UsageError:
        return False
    return True


def _by_bits(exporter: type[Exporter]) -> list[str]:
    """Fewer bits first: they are more likely to win. Without those for batches."""
    names = [name for name in exporter.quantizations if name not in exporter.for_batches]
    return sorted(names, key=bits_of)
