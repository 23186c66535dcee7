"""Encodings of the terminal: no table or note fails because a sign is missing from one."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence

# Signs of tables and notes, and what stands for them where the encoding lacks them.
_ASCII = {
    "✓": "+",
    "✗": "x",
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
    "÷": "/",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "←": "<-",
    "●": "*",
    "•": "*",
    "·": "*",
    "’": "'",
    "“": '"',
    "”": '"',
}
_HANDLER = "edge.ascii"
# Their output is the user's data: what can't be written is an error, and not replaced.
_ANSWERS = ("run", "chat")


def prepare_streams(arguments: Sequence[str]) -> None:
    """Let standard output take every character that tables and notes may hold.

    ASCII, which is what Python uses in a system without a locale, becomes UTF-8, as in click. In
    another encoding, characters that it lacks are replaced, but for commands that print answers.

    Args:
        arguments: The command line without the program's name.
    """
    codecs.register_error(_HANDLER, _replaced)
    command = next((word for word in arguments if not word.startswith("-")), "")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        encoding = getattr(stream, "encoding", None)
        if reconfigure is None or encoding is None:
            continue
        name = codecs.lookup(encoding).name
        if name == "ascii":
            reconfigure(encoding="utf-8", errors=stream.errors)
        elif not name.startswith("utf") and not (stream is sys.stdout and command in _ANSWERS):
            reconfigure(errors=_HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """The error handler: signs in ASCII, other characters as \\xe9 or \\u2713."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or _escaped(one) for one in found), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def undecoded_hint(arguments: Sequence[str]) -> str:
    """What to do if the locale's encoding could not decode the arguments; else empty."""
    if not any("\udc80" <= one <= "\udcff" for word in arguments for one in word):
        return ""
    return (
        f" (the arguments are not {sys.getfilesystemencoding()}, the encoding of this locale:"
        " set LC_ALL=C.UTF-8 or PYTHONUTF8=1)"
    )
