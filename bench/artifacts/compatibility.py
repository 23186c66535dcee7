"""Artifacts and rows that don't go together, told before anything is measured."""

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

_SAMPLE = 500  # rows whose pieces are looked at
_MANY_UNKNOWN = 0.05  # of these


def open_artifacts(folders: Sequence[str | Path]) -> list[Artifact]:
    """The artifacts, without their engines.

    Raises:
        UsageError: none, or one of a format that there is not.
        ArtifactError: no artifact, one that is damaged, or one whose tokenizer or prompt is not the
            recorded one.
    """
    if not folders:
        raise UsageError("name at least one artifact")
    opened = [Artifact.open(folder) for folder in folders]
    for artifact in opened:
        ENGINES.entry(artifact.manifest.format)
        check_text_path(artifact)
    return opened


def check_rows(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> None:
    """Refuse rows that the artifacts' prompts are not made for.

    Raises:
        UsageError: no rows, a row without a field of the prompt, or rows that have the prompt's
            prefix already.
    """
    if not rows:
        raise UsageError("there are no rows to measure with")
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
                f"every input of the data starts with the prompt of {artifact.folder},"
                f" {prompt.template!r}, which would stand there twice: give the data without it"
            )


def notes_on(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> list[str]:
    """What a reader of the figures has to know: other texts reach the models than they were made
    for, or each of them another one."""
    return [*_unknown_pieces(artifacts, rows), *_differences(artifacts)]


def _unknown_pieces(artifacts: Sequence[Artifact], rows: Sequence[Row]) -> Iterator[str]:
    """Rows that a tokenizer has no pieces for, said once for the artifacts that share it."""
    sample = spread_rows(rows, min(len(rows), _SAMPLE))
    seen = set()
    for artifact in artifacts:
        manifest = artifact.manifest
        path = artifact.path(TOKENIZER_NAME)
        if manifest.tokenizer.sha256 in seen:
            continue
        seen.add(manifest.tokenizer.sha256)
        unknown = read_json(path, TOKENIZER_MAX_BYTES).get("model", {}).get("unk_id")
        if unknown is None:
            continue
        prompt = Prompt(manifest.prompt_template)
        texts = [prompt.apply(row.input, row.fields) for row in sample]
        tokenizer = Tokenizer(path, eos=manifest.architecture.eos_token_id)
        hit = sum(unknown in ids for ids in tokenizer.encode(texts))
        if hit >= _MANY_UNKNOWN * len(texts):
            yield (
                f"{hit} of {len(texts)} inputs hold characters that the tokenizer of"
                f" {artifact.folder} does not know (<unk>): was it trained on other data?"
            )


def _differences(artifacts: Sequence[Artifact]) -> Iterator[str]:
    manifests = [artifact.manifest for artifact in artifacts]
    if len({manifest.tokenizer.sha256 for manifest in manifests}) > 1:
        yield (
            "The artifacts have different tokenizers: eval_loss and times per token are of"
            " different tokens, compare exact match, ROUGE-L, BLEU and whole answers."
        )
    prompts = sorted({manifest.prompt_template for manifest in manifests})
    if len(prompts) > 1:
        listed = ", ".join(map(repr, prompts))
        yield f"The artifacts have different prompts: {listed}."
