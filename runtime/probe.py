"""A trial load of an artifact in a child process with limits.

The engines' libraries are C++ and can crash, hang or exhaust memory on malicious files in ways that
no check foresees. A child process loads the artifact and generates short answers in all ways first,
so that this becomes an error message.

The child measures its limits from the moment that the libraries are imported. It is not a sandbox:
it runs with all rights of this process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtime import errors
from edge.runtime.artifact import Artifact
from edge.runtime.engines import ENGINES
from edge.runtime.errors import ArtifactError, EdgeError

_ANSWER_TOKENS, _DRAFT_TOKENS = 4, 3
_MEMORY, _MEMORY_FACTOR = 1 << 30, 8  # bytes, and per byte of the artifact
_CPU_SECONDS, _BYTES_PER_SECOND = 10, 20 << 20
_WALL_FACTOR = 6  # other processes may use the cores
_IMPORT_SECONDS = 120  # to start Python and import the libraries
_MAX_MESSAGE = 1 << 16  # characters
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL"}


@dataclass(frozen=True)
class Probe:
    """What the child did.

    Attributes:
        finish_reason: Why the short answer ended; see `Generation`.
    """

    finish_reason: str


def probe(folder: str | Path, *, threads: int | None = None, trust_code: bool = False) -> Probe:
    """Load an artifact and generate one short answer, in a child process with limits.

    The limits are for address space (1 GiB and 8 times the artifact) and time on the processor
    (10 s, and 1 s for each 20 MB; 6 times that by the clock).

    Args:
        folder: The artifact folder.
        threads: See `load`.
        trust_code: See `load`.

    Raises:
        ArtifactError: The artifact can't be loaded, or loading it crashes or exceeds the limits.
        EdgeError: What `load` and `Model.generate` raise.
    """
    artifact = Artifact.open(folder, trust_code=trust_code)
    ENGINES.load(artifact.manifest.format)  # a missing library is reported from here
    seconds = _CPU_SECONDS + artifact.manifest.size // _BYTES_PER_SECOND
    argument = {
        "folder": str(folder),
        "threads": threads,
        "trust_code": trust_code,
        "memory": _MEMORY + _MEMORY_FACTOR * artifact.manifest.size,
        "seconds": seconds,
    }
    # -P keeps the current folder off the import path.
    command = [sys.executable, "-P", "-m", "edge.runtime.probe", json.dumps(argument)]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WALL_FACTOR * seconds + _IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(folder, seconds) from None
    if ended.returncode == 0:
        return Probe(**json.loads(ended.stdout[-_MAX_MESSAGE:]))
    raise _error(folder, ended, argument)


def probe_all(folders: Iterable[Path], *, trust_code: bool = False) -> None:
    """Probe several artifacts, after a check of their hashes: a library reads no altered file.

    Raises:
        EdgeError: A file is altered; otherwise see `probe`.
    """
    for folder in folders:
        Artifact.open(folder, verify=True, trust_code=trust_code)
        probe(folder, trust_code=trust_code)


def _error(
    folder: str | Path, ended: subprocess.CompletedProcess[bytes], argument: dict[str, Any]
) -> EdgeError:
    """The error of a child that failed."""
    code = ended.returncode
    name = signal.Signals(-code).name if -code in {*signal.Signals} else f"status {code}"
    if name in ("SIGXCPU", "SIGALRM"):
        return _too_slow(folder, argument["seconds"])
    if name in _CRASHES:
        return ArtifactError(
            f"{folder}: loading it crashed the engine's library ({name}); the files are damaged or"
            " malicious: export it again"
        )
    try:
        found = json.loads(ended.stdout[-_MAX_MESSAGE:])
        kind: type[EdgeError] = getattr(errors, found["type"])
        return kind(found["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        lines = ended.stderr[-_MAX_MESSAGE:].decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), name)
        return ArtifactError(f"{folder}: the trial load failed ({last[:300].strip()})")


def _too_slow(folder: str | Path, seconds: int) -> ArtifactError:
    return ArtifactError(
        f"{folder}: loading it and a short answer took more than {seconds} s of processor time;"
        " the files are damaged or malicious: export it again"
    )


def _main(argument: dict[str, Any]) -> int:
    """The child: prints a Probe, or the type and message of an EdgeError, as JSON."""
    # Only the answer goes to the pipe, whatever the libraries print.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from edge.runtime.model import load

    try:
        artifact = Artifact.open(argument["folder"])
        ENGINES.load(artifact.manifest.format)
        _set_limits(argument["memory"], argument["seconds"])
        threads, trust_code = argument["threads"], argument["trust_code"]
        with load(argument["folder"], threads=threads, trust_code=trust_code) as model:
            fields = dict.fromkeys(model.prompt.fields, "test")
            tokens = min(_ANSWER_TOKENS, model.limits.max_new_tokens)
            answer = model.generate("test", fields=fields, max_new_tokens=tokens)
            # Engines may open further files for other searches.
            if model.engine.supports_beams:
                model.generate("test", fields=fields, max_new_tokens=tokens, num_beams=2)
            if model.drafts_from_input:
                model.generate(
                    "test",
                    fields=fields,
                    max_new_tokens=tokens,
                    prompt_lookup_num_tokens=_DRAFT_TOKENS,
                )
            model.score("test", "test", fields=fields)  # reads the files for scores
    except EdgeError as error:
        json.dump({"type": type(error).__name__, "message": str(error)}, answers)
        answers.close()
        return 1
    json.dump({"finish_reason": answer.finish_reason}, answers)
    answers.close()
    return 0


def _set_limits(memory: int, seconds: int) -> None:
    """Limit what the process uses from now on. Exceeding the times kills it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + seconds
    _lower(resource.RLIMIT_CPU, cpu)
    _lower(resource.RLIMIT_CORE, 0)
    signal.setitimer(signal.ITIMER_REAL, _WALL_FACTOR * seconds)
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the address space in use is unknown
        pages = int(statm.read_text(encoding="ascii").split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, hard))


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
