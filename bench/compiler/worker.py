"""Worker processes of a search: how they are started, and their protocol of JSON lines.

first answer     {"ready": true, …}
line in          a request, see each worker
line out         its answer, or {"error": reason}; {"fatal": reason, "status": n} ends the search
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from edge.bench.engines.baselines.child import describe_error, die_with_parent, redirect_stdout
from edge.bench.timing.line_process import LineProcess, process_environment
from edge.runtime.errors import EdgeError

Values = dict[str, Any]
Answer = Callable[[Mapping[str, Any]], Values]
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Child(LineProcess):
    """The process of a worker, a module in `edge.bench.compiler`."""

    def __init__(self, program: str, argument: Mapping[str, Any], *, threads: int | None) -> None:
        """Start the process.

        Args:
            program: the module's name.
            argument: its argument, JSON values.
            threads: that its libraries compute with; None leaves that to them.
        """
        # -P: a folder called `train` or `export` where the command runs is not a library.
        command = [sys.executable, "-P", "-m", f"edge.bench.compiler.{program}"]
        super().__init__(
            [*command, json.dumps(argument)],
            dict(os.environ) if threads is None else process_environment(threads),
        )

    def read_answer(self, timeout: float) -> Values:
        """As `LineProcess.read_answer`.

        Raises:
            EdgeError: a fatal error that affects every candidate, such as a full disk.
        """
        found = super().read_answer(timeout)
        if "fatal" in found:
            error = EdgeError(found["fatal"])
            error.exit_code = found["status"]
            raise error
        return found


def run_program(start: Callable[[Values], tuple[Values, Answer]], *, vital: bool) -> None:
    """Run a worker's main loop.

    Args:
        start: takes the argument; returns the values of the first answer, and the function that
            answers requests.
        vital: whether an EdgeError of `start` ends the search.
    """
    die_with_parent()
    lines = redirect_stdout()

    def say(values: Mapping[str, Any]) -> None:
        lines.write(json.dumps(values) + "\n")
        lines.flush()

    try:
        first, answer = start(json.loads(sys.argv[1]))
    except Exception as error:
        say(failure(error, fatal=vital and isinstance(error, EdgeError)))
        return
    say({"ready": True, **first})
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:
            found = failure(error)
        say(found)


def failure(error: Exception, *, fatal: bool = False) -> Values:
    """The line for an error. A full disk is always fatal: it affects every candidate."""
    said = str(error) if isinstance(error, EdgeError) else describe_error(error)
    chain = (error, error.__cause__)
    full = any(isinstance(e, OSError) and e.errno in _NO_SPACE for e in chain)
    if fatal or full or "no space left" in said.lower():
        return {"fatal": said, "status": getattr(error, "exit_code", 1)}
    return {"error": said}
