"""Upload of an artifact or a model folder to the Hugging Face hub, in one commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from edge.export.model_card import model_card
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME, Artifact
from edge.runtime.artifact.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, to_json
from edge.runtime.errors import ArtifactError, EdgeError, ModelError, UsageError, library_errors
from edge.runtime.hub import Repository, hub_errors, is_hub_id, quiet_hub, why_unreachable
from edge.runtime.platform.json_file import read_json
from edge.train.model.folder import require_tokenizer
from edge.train.model.training_record import RECORD_NAME
from edge.train.output.model_card import CARD_NAME, Measurement, last_part, trained_card

# What goes up of a model folder, besides its safetensors files.
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    TOKENIZER_NAME,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "model.safetensors.index.json",
)
# Paths in the record of a training, which say how folders of this machine are called.
_RECORDED_PATHS = {
    "data": ("path",),
    "hyperparameters": ("data", "output", "model", "tokenizer"),
}

Content = Path | bytes


@dataclass(frozen=True)
class Pushed:
    """What was uploaded: the repository's page, the commit, and the names of the files."""

    url: str
    commit: str
    files: tuple[str, ...]


def push(
    folder: str | Path,
    repository: str,
    *,
    measurements: Sequence[Measurement] = (),
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Upload an artifact or a model folder, with a model card, in one commit.

    The repository is created if there is none. Of an artifact the files in its manifest are
    uploaded, after a check of their hashes; of a model folder the configuration, the tokenizer and
    safetensors. The token is that of huggingface_hub: HF_TOKEN, or `hf auth login`.

    Args:
        folder: the artifact or the model folder.
        repository: OWNER/NAME.
        measurements: values for the results of an artifact's card. Those of a model are the
            evaluation of its training.
        private: create a private repository.
        revision: the branch, made if there is none; None is the default branch.
        message: the message of the commit.

    Raises:
        UsageError: a malformed name, or `private` for a public repository that exists.
        ArtifactError: a damaged artifact.
        ModelError: neither an artifact nor a model folder.
        EdgeError: no token, no access, or the hub can't be reached; nothing is uploaded.
    """
    if not is_hub_id(repository) or "/" not in repository:
        raise UsageError(f"{repository!r:.200} is not a hub id: give OWNER/NAME")
    folder = Path(folder)
    if (folder / MANIFEST_NAME).is_file():
        files = artifact_files(folder, repository, measurements)
    else:
        files = model_files(folder, repository)
    what = f"{folder.resolve().name} by edge-t5"
    return _commit(files, repository, private, revision, message or f"Upload {what}")


def artifact_files(
    folder: Path, repository: str, measurements: Sequence[Measurement] = ()
) -> dict[str, Content]:
    """The files of an artifact by name, with a new card and its hash in the manifest.

    Raises:
        ArtifactError: a damaged artifact, or one without a parity check.
    """
    artifact = Artifact.open(folder, verify=True)
    manifest = artifact.manifest
    with library_errors(ArtifactError, folder, "its manifest lacks what a model card shows"):
        card = str(model_card(manifest, repository, measurements)).encode()
    values = dict(read_json(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES))
    info = {"sha256": hashlib.sha256(card).hexdigest(), "size": len(card)}
    values["files"] = {**values["files"], CARD_NAME: info}
    files: dict[str, Content] = {name: artifact.path(name) for name in manifest.files}
    return {**files, CARD_NAME: card, MANIFEST_NAME: to_json(values).encode()}


def model_files(folder: Path, repository: str) -> dict[str, Content]:
    """The files of a model folder by name. A card that nobody edited is written again.

    Raises:
        ModelError: not a T5-family model folder with safetensors and a tokenizer.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: neither an artifact ({MANIFEST_NAME}) nor a model folder (config.json)"
            if folder.is_dir()
            else f"{folder}: no such folder"
        )
    source = SourceModel(folder)
    require_tokenizer(folder)
    names = [*_MODEL_FILES, *sorted(path.name for path in folder.glob("*.safetensors"))]
    files: dict[str, Content] = {n: folder / n for n in names if (folder / n).is_file()}
    if source.training:
        record = without_paths(source.training)
        files[RECORD_NAME] = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    files[CARD_NAME] = folder / CARD_NAME
    if _is_ours(folder / CARD_NAME, source.training):
        files[CARD_NAME] = str(trained_card(source.training, repository)).encode()
    return files


def _is_ours(card: Path, record: Mapping[str, Any]) -> bool:
    """Whether there is no card, or the one that training wrote, which names no repository."""
    if not card.is_file():
        return True
    return card.read_bytes() == str(trained_card(record)).encode()


def without_paths(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a training with the last part of each path, which reveals no folders."""
    cleaned = dict(record)
    if not isinstance(record.get("revision"), str) and isinstance(record.get("model"), str):
        cleaned["model"] = PurePath(record["model"]).name
    for section, names in _RECORDED_PATHS.items():
        values = record.get(section)
        if isinstance(values, Mapping):
            paths = {n: values[n] for n in names if isinstance(values.get(n), str)}
            cleaned[section] = {**values, **{n: last_part(path) for n, path in paths.items()}}
    return cleaned


def _commit(
    files: Mapping[str, Content],
    repository: str,
    private: bool,
    revision: str | None,
    message: str,
) -> Pushed:
    """Create the repository and the branch if they are missing, and commit the files.

    Raises:
        UsageError: `private` for a public repository.
        EdgeError: the hub refuses or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise EdgeError(f"{repository}: HF_HUB_OFFLINE is set, so nothing can be uploaded")
    if get_token() is None:
        raise EdgeError(f"{repository}: no token. Log in with `hf auth login` or set HF_TOKEN")
    reason = why_unreachable(f"/api/models/{repository}")
    if reason is not None:
        raise EdgeError(f"{repository}: {constants.ENDPOINT} can't be reached ({reason})")
    api = HfApi()
    place = Repository(repository, revision)
    with quiet_hub(), hub_errors(EdgeError, place, "repository", upload=True):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"{repository}: exists and is public. Make it private in its settings, or leave"
                " --private out"
            )
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.create_commit(
            repository,
            [CommitOperationAdd(name, content) for name, content in sorted(files.items())],
            commit_message=message,
            revision=revision,
        )
    return Pushed(f"{constants.ENDPOINT}/{repository}", done.oid, tuple(sorted(files)))
