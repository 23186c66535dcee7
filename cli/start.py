"""Entry point of the installed command: imports nothing before Ctrl-C is handled."""

from __future__ import annotations

import sys
from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit; see `edge.cli.main.main`. Ctrl-C during imports exits 130."""
    try:
        from edge.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("edge: interrupted\n")
        sys.exit(_INTERRUPTED)
