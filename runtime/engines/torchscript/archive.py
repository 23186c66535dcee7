"""A check of a TorchScript archive that does not run it.

The archive is a zip file: `data.pkl`, `code/`, `constants/` and a few small files inside one
folder. The check keeps `torch.jit.load` from damaged files. It says nothing about what the code
does: a TorchScript file is code, and loading it runs it.

Format: caffe2/serialize/inline_container.h of PyTorch.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from edge.runtime.errors import ArtifactError

_MAX_ENTRIES = 1 << 16
_MAX_COMPRESSED = 64 << 20  # bytes of all compressed entries together, once decompressed
_REQUIRED = ("data.pkl", "constants.pkl")
# Entries that torch.jit.save writes, below the folder of the archive.
_NAMES = re.compile(
    r"(data|constants|attributes)(\.pkl|/[0-9]{1,9})|code/[\w./]{1,512}"
    r"|\.?(data/)?(version|byteorder|serialization_id|\.format_version|\.storage_alignment)",
    re.ASCII,
)


def check_archive(path: Path) -> None:
    """Check names, sizes and checksums of the entries.

    Raises:
        ArtifactError: The file can't be read, or is not an archive as torch.jit.save writes it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            fault = _fault(archive, path.stat().st_size)
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    except Exception as error:  # zipfile raises many types for damaged files
        raise ArtifactError(
            f"{path}: damaged TorchScript file ({error}); copy or export it again"
        ) from None
    if fault:
        raise ArtifactError(f"{path}: damaged TorchScript file ({fault}); copy or export it again")


def _fault(archive: zipfile.ZipFile, size: int) -> str | None:
    """What is wrong with an archive in a file of `size` bytes, or None."""
    entries = archive.infolist()
    if not 0 < len(entries) <= _MAX_ENTRIES:
        return f"{len(entries)} entries"
    root = entries[0].filename.partition("/")[0]
    names = {entry.filename for entry in entries}
    if len(names) != len(entries):
        return "an entry is repeated"
    for name in _REQUIRED:
        if f"{root}/{name}" not in names:
            return f"{name} is missing"
    stored = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED)
    compressed = sum(entry.file_size for entry in entries) - stored
    if stored > size or compressed > _MAX_COMPRESSED:
        return f"{stored + compressed:,} bytes in a file of {size:,}"
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        if folder != root or not _NAMES.fullmatch(name) or ".." in name:
            return f"entry {entry.filename!r:.100}"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"entry {entry.filename!r:.100} has an unknown compression"
    damaged = archive.testzip()
    return None if damaged is None else f"entry {damaged!r:.100} has another checksum"
