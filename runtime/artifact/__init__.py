"""Artifact folders: opening, size checks and verification by hash."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edge.runtime.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from edge.runtime.errors import ArtifactError

_MAX_ENTRIES = 10_000  # files of a folder
TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_MAX_BYTES = 256 << 20  # several times the largest tokenizer of a T5 model


@dataclass(frozen=True)
class Artifact:
    """A folder with everything an app needs: model, tokenizer, manifest and model card.

    Attributes:
        folder: The artifact folder.
        manifest: The content of its edge.json.
        trust_code: Whether the engine may run code in the files; see `open`.
    """

    folder: Path
    manifest: Manifest
    trust_code: bool = False

    @classmethod
    def open(
        cls, folder: str | Path, *, verify: bool = False, trust_code: bool = False
    ) -> Artifact:
        """Open an artifact.

        Args:
            folder: The artifact folder.
            verify: Also check the sha256 of every file. Names and sizes are always checked.
            trust_code: Whether the engine may run code in the files (TorchScript) that this
                installation did not export.

        Raises:
            ArtifactError: The folder is not an artifact, or a file is missing, truncated, altered,
                or not in the manifest.
        """
        folder = Path(folder)
        artifact = cls(folder, read_manifest(folder), trust_code)
        artifact.check_unlisted()
        artifact.check_sizes()
        if verify:
            artifact.check_hashes()
        return artifact

    def path(self, name: str) -> Path:
        """The path of one of the artifact's files.

        Raises:
            ArtifactError: The manifest does not list the file.
        """
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.folder}: {name} is not in the manifest; export it again")
        return self.folder / name

    def check_unlisted(self) -> None:
        """Check that the folder has no files besides those in the manifest.

        A graph could read them. Names that start with a dot are allowed, for tools such as git.

        Raises:
            ArtifactError: A file or folder is not in the manifest, or there are too many.
        """
        try:
            with os.scandir(self.folder) as entries:
                for count, entry in enumerate(entries):
                    name = entry.name
                    if count > _MAX_ENTRIES:
                        raise ArtifactError(f"{self.folder} has more than {_MAX_ENTRIES} files")
                    if name[0] != "." and name != MANIFEST_NAME and name not in self.manifest.files:
                        raise ArtifactError(
                            f"{self.folder / name} is not in the manifest of the artifact;"
                            " remove it, or export the artifact again"
                        )
        except OSError as error:
            raise ArtifactError(f"{self.folder}: can't be read ({error.strerror})") from error

    def check_sizes(self) -> None:
        """Check that every file exists with the size in the manifest.

        Raises:
            ArtifactError: A file is missing, not a regular file, or has another size.
        """
        for name, info in self.manifest.files.items():
            path = self.folder / name
            if path.is_symlink() or not path.is_file():
                raise ArtifactError(f"{path} is missing or not a regular file; export it again")
            size = path.stat().st_size
            if size != info.size:
                raise ArtifactError(
                    f"{path} has {size:,} bytes, the manifest says {info.size:,}:"
                    " truncated or altered; copy or export it again"
                )

    def check_hashes(self) -> None:
        """Check the sha256 of every file.

        Raises:
            ArtifactError: A file is altered, or can't be read.
        """
        for name, info in self.manifest.files.items():
            path = self.folder / name
            try:
                digest = sha256_of(path)
            except OSError as error:
                raise ArtifactError(f"{path}: can't be read ({error.strerror})") from None
            if digest != info.sha256:
                raise ArtifactError(
                    f"{path} is altered: its sha256 differs from the manifest's;"
                    " copy or export it again"
                )


def find_artifacts(folder: str | Path) -> list[Path]:
    """The folder itself if it is an artifact, else the artifacts directly inside it, by name.

    Raises:
        ArtifactError: The folder is not an artifact and contains none.
    """
    folder = Path(folder)
    if not (folder / MANIFEST_NAME).is_file():
        inner = sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST_NAME}"))
        if inner:
            return inner
        read_manifest(folder)  # raises with the reason
    return [folder]


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file as a hex string."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
