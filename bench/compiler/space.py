"""What a search may try: artifacts (format, quantization, shortlist) and how they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.bench.engines.cache import bits_of
from edge.export.base import EXPORTERS
from edge.runtime.engines import ENGINES
from edge.runtime.errors import MissingExtraError, UsageError

DRAFT_TOKENS = 6  # the longest draft from the input; more are seldom all right


@dataclass(frozen=True, order=True)
class ArtifactSpec:
    """An artifact that can be made."""

    format: str
    quantization: str
    shortlist: bool = False

    @property
    def name(self) -> str:
        return f"{self.format}-{self.quantization}{'-shortlist' if self.shortlist else ''}"


@dataclass(frozen=True)
class Candidate:
    """An artifact and how it is run: threads, other engine settings, and drafts (0: none)."""

    variant: ArtifactSpec
    threads: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    draft_tokens: int = 0

    @property
    def name(self) -> str:
        """Unique, readable, and fit for a file's name."""
        parts = [self.variant.name, f"threads{self.threads}"]
        parts += [f"{name}-{str(value).lower()}" for name, value in self.settings.items()]
        if self.draft_tokens:
            parts.append(f"drafts{self.draft_tokens}")
        return "_".join(parts)

    @property
    def simplicity(self) -> tuple[int, int, int]:
        """The simplest of several equally fast ones sorts first."""
        return self.threads, self.draft_tokens, int(self.variant.shortlist)

    def __hash__(self) -> int:
        return hash(self.name)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": self.variant.format,
            "quantization": self.variant.quantization,
            "shortlist": self.variant.shortlist,
            "threads": self.threads,
            "settings": dict(self.settings),
            "draft_tokens": self.draft_tokens,
        }


@dataclass(frozen=True)
class Space:
    """All that may be combined. `quantizations` are by format, the one of `auto` first."""

    quantizations: Mapping[str, Sequence[str]]
    threads: Sequence[int]
    shortlist: bool
    drafts: bool

    @property
    def formats(self) -> list[str]:
        return list(self.quantizations)

    def first(self, format_name: str) -> ArtifactSpec:
        """What stands for a format before its other quantizations are worth an export."""
        return ArtifactSpec(format_name, self.quantizations[format_name][0])

    def variants(self, format_name: str) -> list[ArtifactSpec]:
        """Without shortlists; the one of `first` first."""
        return [ArtifactSpec(format_name, name) for name in self.quantizations[format_name]]

    def listed(self, variant: ArtifactSpec) -> ArtifactSpec | None:
        """The same with a shortlist, where the format has them and there is data for one."""
        if not self.shortlist or not EXPORTERS.load(variant.format).supports_shortlist:
            return None
        return ArtifactSpec(variant.format, variant.quantization, shortlist=True)

    def candidates(self, variant: ArtifactSpec) -> list[Candidate]:
        """Every way to run an artifact, the plainest first."""
        engine = ENGINES.load(variant.format)
        lengths = (0, DRAFT_TOKENS) if self.drafts and engine.supports_prompt_lookup else (0,)
        return [
            Candidate(
                variant,
                settings["threads"],
                {name: value for name, value in settings.items() if name != "threads"},
                tokens,
            )
            for settings in engine.tunable(self.threads)
            for tokens in lengths
        ]

    def everything(self) -> list[Candidate]:
        plain = [v for name in self.formats for v in self.variants(name)]
        listed = [one for v in plain if (one := self.listed(v))]
        return [candidate for v in (*plain, *listed) for candidate in self.candidates(v)]

    def as_json(self) -> dict[str, Any]:
        return {
            "quantizations": {name: list(found) for name, found in self.quantizations.items()},
            "threads": list(self.threads),
            "shortlist": self.shortlist,
            "drafts": self.drafts,
            "combinations": len(self.everything()),
        }


def find_quantizations(
    formats: Sequence[str], quantizations: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What can be made here: format → quantizations, and format → why it can't be.

    Neither given means all. A quantization is asked of every format that has it.

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
        every = (exporter.auto, *_by_bits(exporter.quantizations))
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


def _by_bits(names: Mapping[str, str]) -> list[str]:
    """Fewer bits first: they are the more likely to win."""
    return sorted(names, key=bits_of)
