"""Fingerprint of a model's text path: tokenizer, normalization and prompt.

At inference a text must be processed as in training. Training stores the fingerprint in its record
and export in the manifest; export and benchmark compute it again and compare.
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

# Settings of single calls, saved in tokenizer.json but not part of the text path.
_CALL_SETTINGS = ("truncation", "padding")
_NORMALIZATION = ("normalizer", "pre_tokenizer")


@dataclass(frozen=True)
class TextFingerprint:
    """Hashes (sha256, hex) of the tokenizer and of its normalization, and the prompt template."""

    tokenizer: str
    normalization: str
    prompt_template: str

    @classmethod
    def of(cls, tokenizer_file: str | Path, prompt_template: str) -> TextFingerprint:
        """The fingerprint of a `tokenizer.json` and a prompt template.

        Raises:
            ArtifactError: The file can't be read, or is not JSON.
        """
        try:
            values = read_json(tokenizer_file, TOKENIZER_MAX_BYTES)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{tokenizer_file}: not a tokenizer.json ({error})") from None
        if not isinstance(values, dict):
            raise ArtifactError(f"{tokenizer_file}: not a tokenizer.json (not a JSON object)")
        tokenizer = {name: value for name, value in values.items() if name not in _CALL_SETTINGS}
        normalization = {name: values.get(name) for name in _NORMALIZATION}
        return cls(_sha256(tokenizer), _sha256(normalization), prompt_template)

    def as_record(self) -> dict[str, str]:
        """The fingerprint as it is stored in a training record or manifest."""
        return asdict(self)

    def differences(self, recorded: Mapping[str, Any]) -> Iterator[str]:
        """Describe the differences from a record; what the record lacks is not compared."""
        template = recorded.get("prompt_template", self.prompt_template)
        if template != self.prompt_template:
            yield f"the prompt is {self.prompt_template!r}, but was {template!r} in training"
        if recorded.get("normalization", self.normalization) != self.normalization:
            yield "the tokenizer normalizes text differently than in training"
        elif recorded.get("tokenizer", self.tokenizer) != self.tokenizer:
            yield "the tokenizer differs from that of training"


def check_text_path(artifact: Artifact) -> None:
    """Compare an artifact's tokenizer and prompt with the fingerprint in its manifest.

    Raises:
        ArtifactError: They differ.
    """
    manifest = artifact.manifest
    found = TextFingerprint.of(artifact.path(TOKENIZER_NAME), manifest.prompt_template)
    differences = list(found.differences(manifest.text_path))
    if differences:
        raise ArtifactError(f"{artifact.folder}: {'; '.join(differences)}; export it again")


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
