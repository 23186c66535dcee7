"""The manifest of an artifact folder, `edge.json`: schema, strict reading and writing.

It describes the files, their source, how to use the model and how closely it follows its source.
Every field is checked on reading, because an artifact may come from an untrusted place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.runtime.artifact.architecture import MAX_END_TOKENS, Architecture
from edge.runtime.artifact.dimensions import DIMENSIONS
from edge.runtime.artifact.from_json import build_dataclass
from edge.runtime.artifact.generation_checks import (
    MAX_TEMPLATE_CHARS,
    check_generation,
    check_tasks,
)
from edge.runtime.artifact.missing import missing_hint
from edge.runtime.errors import ArtifactError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import read_json
from edge.runtime.version import edge_version

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Architecture",
    "FileInfo",
    "Limits",
    "Manifest",
    "Source",
    "TokenizerInfo",
    "read_manifest",
    "replace_runtime",
    "to_json",
]

SCHEMA_VERSION = 1
MANIFEST_NAME = "edge.json"
MAX_MANIFEST_BYTES = 4 << 20
_MAX_FILES = 1000
_MAX_TEMPLATE_FIELDS = 16  # each is replaced by a text
MAX_LIMITS = {"max_input_tokens": 1 << 20, "max_new_tokens": 1 << 16}
_BITS_PER_WEIGHT = 2  # fewer than in any format
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+]{0,31}")


@dataclass(frozen=True)
class Source:
    """The model that an artifact was made from.

    Attributes:
        model: Name of the folder, or hub id.
        weights_sha256: Hash of its weights.
        revision: Commit of a hub model.
        base_model: Hub id of the model that it was fine-tuned from, if that is known.
        base_revision: Commit of that one.
    """

    model: str
    weights_sha256: str
    revision: str | None = None
    base_model: str | None = None
    base_revision: str | None = None


@dataclass(frozen=True)
class TokenizerInfo:
    """Hash of tokenizer.json, number of pieces, and the ids of characters that training added.

    Ids from `pieces` up to vocab_size have no text and are never emitted.
    """

    sha256: str
    pieces: int
    added_characters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileInfo:
    """Hash and size of a file."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Limits:
    """Largest input and output, in tokens, eos included."""

    max_input_tokens: int = 512
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Manifest:
    """The content of edge.json.

    Attributes:
        format: Name of the engine's format, such as "onnx".
        quantization: Name of the quantization, such as "int8".
        architecture: Shape of the model.
        source: The model it was made from.
        tokenizer: Hash and size of the tokenizer.
        files: All files of the folder but the manifest.
        prompt_template: The template around each input.
        text_path: Fingerprint of the text path; see `edge.runtime.artifact.text_fingerprint`.
        generation: `GenerationOptions` that differ from the defaults.
        task_specific_params: For each task that the source's config.json names, its prefix and its
            `GenerationOptions`; only `edge.runtime.pipeline` reads it.
        limits: Largest input and output.
        parity: How closely the artifact follows its source.
        conditioning: How the weights were rewritten before quantization, and the calibration
            rows; empty if they were not.
        draft_head: What the draft head was fitted to, and how well; empty without one.
        shortlist: The output vocabulary, if it is restricted.
        compiled: What `edge compile` chose the artifact from.
        runtime: Engine settings, such as threads.
        created: Time of the export, ISO 8601.
        edge_version: Version of edge-t5 that wrote the artifact.
        schema_version: Version of this schema.
    """

    format: str
    quantization: str
    architecture: Architecture
    source: Source
    tokenizer: TokenizerInfo
    files: dict[str, FileInfo]
    prompt_template: str = "{input}"
    text_path: dict[str, str] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    task_specific_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    parity: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, Any] = field(default_factory=dict)
    draft_head: dict[str, Any] = field(default_factory=dict)
    shortlist: dict[str, Any] = field(default_factory=dict)
    compiled: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    edge_version: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(info.size for info in self.files.values())

    def to_json(self) -> str:
        """The text of edge.json."""
        return to_json(asdict(self))


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest of an artifact folder.

    Raises:
        ArtifactError: No artifact there, or a manifest that is malformed or of a newer schema.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        hint = missing_hint(Path(folder), MANIFEST_NAME)
        raise ArtifactError(f"{folder} is not an artifact (no {MANIFEST_NAME}).{hint}")
    try:
        values = read_json(path, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}; export it again") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: a manifest must be a JSON object")
    version = values.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise ArtifactError(f"{path}: schema_version is missing; export it again")
    if version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema {version} is newer than the schema of edge-t5 {edge_version()}"
            f" ({SCHEMA_VERSION}); {_upgrade_hint(values.get('edge_version'))}"
        )
    manifest = build_dataclass(Manifest, values, str(path))
    _check_files(manifest, path)
    _check_numbers(manifest, path)
    check_generation(manifest.generation, path)
    check_tasks(manifest.task_specific_params, path)
    return manifest


def _upgrade_hint(writer: object) -> str:
    """What to install to read an artifact of a newer schema, written by edge-t5 `writer`."""
    if isinstance(writer, str) and _VERSION.fullmatch(writer) and writer != "0+unknown":
        return f"it was written by edge-t5 {writer}: pip install 'edge-t5>={writer}'"
    return "upgrade: pip install -U edge-t5"


def replace_runtime(folder: str | Path, runtime: Mapping[str, Any]) -> None:
    """Atomically replace the engine settings in an artifact's manifest.

    All other fields are kept, including fields that this version does not know.

    Args:
        folder: The artifact folder.
        runtime: The new `runtime` section.

    Raises:
        ArtifactError: No artifact there, or a manifest that is malformed or of a newer schema.
        EdgeError: The file can't be written; the manifest is unchanged.
    """
    read_manifest(folder)
    path = Path(folder) / MANIFEST_NAME
    values = read_json(path, MAX_MANIFEST_BYTES)
    with new_file(path) as staging:
        staging.write_text(to_json({**values, "runtime": dict(runtime)}), encoding="utf-8")


def to_json(values: Mapping[str, Any]) -> str:
    """Values as the text of a manifest file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_BYTES = 255


def _check_files(manifest: Manifest, path: Path) -> None:
    if not 0 < len(manifest.files) <= _MAX_FILES:
        raise ArtifactError(f"{path}: {len(manifest.files)} files listed")
    for name, info in manifest.files.items():
        # A name with a separator could point outside the artifact.
        if name in ("", ".", "..", MANIFEST_NAME) or "/" in name or "\\" in name or "\0" in name:
            raise ArtifactError(f"{path}: {name!r:.300} is not a plain file name")
        if len(name.encode()) > _MAX_NAME_BYTES:
            raise ArtifactError(f"{path}: the file name {name!r:.80}… is too long")
        if info.size < 0 or not _SHA256.fullmatch(info.sha256):
            raise ArtifactError(f"{path}: size or sha256 of {name!r} is malformed")


def _check_numbers(manifest: Manifest, path: Path) -> None:
    """Check every number that memory or time depends on, before anything is allocated."""
    shape = manifest.architecture
    for name, (low, high) in DIMENSIONS.items():
        _check_range(path, f"architecture.{name}", getattr(shape, name), low, high)
    if not 0 < shape.layer_norm_epsilon < 1:  # also refuses NaN
        raise ArtifactError(
            f"{path}: architecture.layer_norm_epsilon is {shape.layer_norm_epsilon}, must be"
            " between 0 and 1"
        )
    if shape.minimum_parameters * _BITS_PER_WEIGHT > 8 * manifest.size:
        raise ArtifactError(
            f"{path}: an architecture of {shape.minimum_parameters:,} weights does not fit into"
            f" files of {manifest.size:,} bytes"
        )
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        if not 0 <= getattr(shape, name) < shape.vocab_size:
            raise ArtifactError(
                f"{path}: a special token's id is outside the vocabulary (architecture.{name})"
            )
    if len(shape.end_token_ids) > MAX_END_TOKENS or not all(
        0 <= token < shape.vocab_size for token in shape.end_token_ids
    ):
        raise ArtifactError(
            f"{path}: architecture.end_token_ids must be at most {MAX_END_TOKENS} ids of the"
            " vocabulary"
        )
    pieces, added = manifest.tokenizer.pieces, manifest.tokenizer.added_characters
    if not 0 < pieces <= shape.vocab_size or not all(0 <= n < pieces for n in added.values()):
        raise ArtifactError(f"{path}: tokenizer: pieces or added_characters are out of range")
    for name, high in MAX_LIMITS.items():
        _check_range(path, f"limits.{name}", getattr(manifest.limits, name), 1, high)
    template = manifest.prompt_template
    if len(template) > MAX_TEMPLATE_CHARS or template.count("{") > _MAX_TEMPLATE_FIELDS:
        raise ArtifactError(
            f"{path}: prompt_template must have at most {MAX_TEMPLATE_CHARS:,} characters and"
            f" {_MAX_TEMPLATE_FIELDS} fields"
        )


def _check_range(path: Path, name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ArtifactError(f"{path}: {name} is {value!r:.40}, must be from {low} to {high:,}")
