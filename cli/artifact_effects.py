"""Which options have an effect on the answers of an artifact: by its manifest and its engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.runtime.constraint_options import KINDS

if TYPE_CHECKING:
    from edge.runtime.artifact.manifest import Manifest
    from edge.runtime.engines.base import Engine

Values = Mapping[str, Any]  # parameter name → value, defaults included


def forget_artifacts() -> None:
    """Read the manifests again from now on."""
    _manifest.cache_clear()


@functools.lru_cache(maxsize=16)
def _manifest(artifact: str) -> Manifest | None:
    """An artifact's manifest; None if it can't be read, which is reported when it is loaded.

    Cached during one check: it may be on the hub.
    """
    from edge.runtime.artifact.manifest import read_manifest
    from edge.runtime.errors import EdgeError
    from edge.runtime.hub.artifacts import artifact_folder

    try:
        return read_manifest(artifact_folder(artifact))
    except EdgeError:
        return None


def _manifest_of(values: Values) -> Manifest | None:
    """The manifest of the command's one artifact; None with `edge chat --url`, too."""
    artifact = values.get("artifact")
    return None if artifact is None else _manifest(str(artifact))


@functools.lru_cache(maxsize=16)
def _engine(format_name: str) -> type[Engine] | None:
    """The engine's class; None if its library is missing, which is reported when it is loaded."""
    from edge.runtime.engines import ENGINES
    from edge.runtime.errors import EdgeError

    try:
        return ENGINES.load(format_name)
    except EdgeError:
        return None


def _generation(name: str, values: Values) -> Any:
    """A generation setting of a call: the option, else that of --profile, else the artifact's.

    Raises:
        LookupError: The artifact or its engine can't be read.
    """
    if values.get(name) is not None:
        return values[name]
    manifest = _manifest_of(values)
    engine = None if manifest is None else _engine(manifest.format)
    if manifest is None or engine is None:
        raise LookupError(name)
    from edge.runtime.guardrails import profile_options

    profile = profile_options(values.get("profile"), beams=engine.supports_beams)
    return {**manifest.generation, **profile}.get(name)


def _is_known(rule: Callable[[Values], bool]) -> Callable[[Values], bool]:
    """The rule; true where a service decides, or the artifact can't be read."""

    @functools.wraps(rule)
    def effective(values: Values) -> bool:
        try:
            return _manifest_of(values) is None or rule(values)
        except LookupError:
            return True

    return effective


@_is_known
def samples(values: Values) -> bool:
    """Whether an answer is sampled."""
    return bool(_generation("do_sample", values))


@_is_known
def has_beams(values: Values) -> bool:
    """Whether an answer is found by beam search."""
    return (_generation("num_beams", values) or 1) > 1


@_is_known
def drafts(values: Values) -> bool:
    """Whether tokens of an answer are drafted from the input."""
    if values.get("prompt_lookup_num_tokens") == 0:
        return True  # turns the artifact's default off
    greedy = not _generation("do_sample", values) and (_generation("num_beams", values) or 1) == 1
    constrained = any(values.get(name) for name in KINDS)
    manifest = _manifest_of(values)
    engine = None if manifest is None else _engine(manifest.format)
    if manifest is None or engine is None:
        return True
    return greedy and not constrained and engine.drafts_with(manifest.quantization)


@_is_known
def prompt_has_fields(values: Values) -> bool:
    """Whether the prompt has every field that --field names."""
    from edge.runtime.rows import Prompt

    manifest = _manifest_of(values)
    names = () if manifest is None else Prompt(manifest.prompt_template).fields
    return all(field.partition("=")[0] in names or "=" not in field for field in values["fields"])


def lowers_limit(values: Values) -> bool:
    """Whether --max-input-tokens is not above the limit of every artifact."""
    given = values.get("artifacts") or (values.get("artifact"),)
    manifests = [_manifest(_folder_of(str(one))) for one in given if one is not None]
    limits = [found.limits.max_input_tokens for found in manifests if found is not None]
    wanted = values["max_input_tokens"]
    return len(limits) < len(given) or wanted is None or any(wanted <= limit for limit in limits)


def _folder_of(argument: str) -> str:
    """The folder of an artifact of `edge serve`, which may be NAME=folder."""
    _, equals, folder = argument.partition("=")
    return folder if equals and not os.path.isdir(argument) else argument
