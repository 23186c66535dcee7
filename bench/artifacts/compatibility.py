"""Checks that artifacts and rows fit together, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edge.bench.timing.latency import spread_rows
from edge.runtime.artifact import TOKENIZER_MAX_BYTES, TOKENIZER_NAME, Artifact
from edge.runtime.artifact.text_fingerprint import check_text_path
from edge.runtime.engines import ENGINES
from edge.runtime.errors import UsageError
from edge.runtime.guardrails import without_prefix
from edge.runtime.platform.json_file import read_json
from edge.runtime.rows import Prompt, Row
from edge.runtime.text.tokenization import Tokenizer

_SAMPLE = 500  # rows that are checked for unknown characters
_MANY_UNKNOWN = 0.05  # of these


def open_artifacts(folders: Sequence[str | Path], *, trust_code: bool = False) -> list[Artifact]:
    """Open artifacts, without their engines.

    Raises:
        UsageError: no folders, or an unknown format.
        ArtifactError: not an artifact, a damaged one, or one whose tokenizer or prompt differs
            from what its manifest records.
    """
    if not folders:
        raise UsageError("no artifact to measure; give at least one artifact folder")
    opened = [Artifact.open(folder, trust_code=trust_code) for folder in folders]
    for artifact in opened:
        ENGINES.entry(artifact.manifest.format)
        check_text_path(artifact)
    return opened


def check_rows(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> None:
    """Refuse rows that don't fit the artifacts' prompts.

    Raises:
        UsageError: no rows, a row without a field of the prompt, or rows that already start with
            the prompt's prefix.
    """
    if not rows:
        raise UsageError("the data has no rows to measure with")
    for artifact in artifacts:
        prompt = Prompt(artifact.manifest.prompt_template)
        for name in prompt.fields:
            row = next((row for row in rows if not isinstance(row.fields.get(name), str)), None)
            if row is not None:
                where = f" in line {row.line}" if row.line else ""
                raise UsageError(
                    f"{artifact.folder} has the prompt {prompt.template!r}: the data needs a column"
                    f" {name!r} of text, which is missing{where}"
                )
        if all(without_prefix(row.input, prompt, row.fields) != row.input for row in rows):
            raise UsageError(
                f"every input of the data already starts with the prompt of {artifact.folder},"
                f" {prompt.template!r}, which would be added twice; remove it from the data"
            )


def notes_on(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> list[str]:
    """Notes for readers of the results: unknown characters, and different tokenizers or prompts."""
    return [*_unknown_characters(artifacts, rows), *_differences(artifacts)]


def _unknown_characters(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> Iterator[str]:
    """One note for each tokenizer that turns many rows into <unk>."""
    sample = spread_rows(rows, min(len(rows), _SAMPLE))
    seen = set()
    for artifact in artifacts:
        manifest = artifact.manifest
        path = artifact.path(TOKENIZER_NAME)
        if manifest.tokenizer.sha256 in seen:
            continue
        seen.add(manifest.tokenizer.sha256)
        unknown = _unknown_id(path)
        if unknown is None:
            continue
        prompt = Prompt(manifest.prompt_template)
        texts = [prompt.apply(row.input, row.fields) for row in sample]
        tokenizer = Tokenizer(path, eos=manifest.architecture.eos_token_id)
        hit = sum(unknown in ids for ids in tokenizer.encode(texts))
        if hit >= _MANY_UNKNOWN * len(texts):
            yield (
                f"{hit} of {len(texts)} inputs contain characters that the tokenizer of"
                f" {artifact.folder} does not know (<unk>). Was it trained on other data?"
            )


def _unknown_id(path: Path) -> int | None:
    """The id of <unk> in a tokenizer.json; None if it has none, or is not one."""
    try:
        unknown = read_json(path, TOKENIZER_MAX_BYTES)["model"]["unk_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return unknown if type(unknown) is int else None


def _differences(artifacts: Sequence[Artifact]) -> Iterator[str]:
    manifests = [artifact.manifest for artifact in artifacts]
    if len({manifest.tokenizer.sha256 for manifest in manifests}) > 1:
        yield (
            "The artifacts have different tokenizers: eval_loss and times per token are not"
            " comparable. Compare exact match, ROUGE-L, BLEU and whole answers."
        )
    prompts = sorted({manifest.prompt_template for manifest in manifests})
    if len(prompts) > 1:
        listed = ", ".join(map(repr, prompts))
        yield f"The artifacts have different prompts: {listed}."
