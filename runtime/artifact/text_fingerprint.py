"""The path of a text into a model, as a fingerprint: tokenizer, normalization and prompt.

A model answers well only what reaches it as its training rows did. Training stores the fingerprint
in its record, the export in the manifest; export and benchmark compute it again and compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.runtime.artifact import TOKENIZER_MAX_BYTES, TOKENIZER_NAME, Artifact
from edge.runtime.errors import ArtifactError
from edge.runtime.platform.json_file import read_json

# What a tokenizer.json says of one call only; this project sets its own limits and padding.
_PASSING = ("truncation", "padding")
_NORMALIZATION = ("normalizer", "pre_tokenizer")


@dataclass(frozen=True)
class TextFingerprint:
    """sha256 (hex) of the tokenizer and of its normalization alone, and the prompt's template."""

    tokenizer: str
    normalization: str
    prompt_template: str

    @classmethod
    def of(cls, tokenizer_file: str | Path, prompt_template: str) -> TextFingerprint:
        """The path through a `tokenizer.json`, which is small and was checked by who wrote it.

        Raises:
            ArtifactError: the file can't be read as JSON.
        """
        try:
            values = read_json(tokenizer_file, TOKENIZER_MAX_BYTES)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{tokenizer_file}: not a tokenizer.json ({error})") from None
        if not isinstance(values, dict):
            raise ArtifactError(f"{tokenizer_file}: not a tokenizer.json (no JSON object)")
        lasting = {name: value for name, value in values.items() if name not in _PASSING}
        parts = {name: values.get(name) for name in _NORMALIZATION}
        return cls(_sha256(lasting), _sha256(parts), prompt_template)

    def as_record(self) -> dict[str, str]:
        return asdict(self)

    def differences(self, recorded: Mapping[str, Any]) -> Iterator[str]:
        """What differs from a record, in words; a record without a part says nothing of it."""
        template = recorded.get("prompt_template", self.prompt_template)
        if template != self.prompt_template:
            yield f"the prompt is {self.prompt_template!r}, that of training was {template!r}"
        if recorded.get("normalization", self.normalization) != self.normalization:
            yield "the tokenizer normalizes text otherwise than in training"
        elif recorded.get("tokenizer", self.tokenizer) != self.tokenizer:
            yield "the tokenizer is not that of training"


def check_text_path(artifact: Artifact) -> None:
    """Compare an artifact's tokenizer and prompt with what its manifest recorded of them.

    Raises:
        ArtifactError: they differ; whatever is measured would be of another model.
    """
    manifest = artifact.manifest
    found = TextFingerprint.of(artifact.path(TOKENIZER_NAME), manifest.prompt_template)
    different = list(found.differences(manifest.text_path))
    if different:
        raise ArtifactError(f"{artifact.folder}: {'; '.join(different)}; export it again")


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
