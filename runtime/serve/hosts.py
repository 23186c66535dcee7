"""Names in the Host header that a service answers.

A page can let its own name resolve to 127.0.0.1 (DNS rebinding). Its requests then count as same
origin, but they carry the page's name.
"""

from __future__ import annotations

from collections.abc import Iterable

LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "::1")
ANY = "*"


def allowed_hosts(listening_on: str, extra: Iterable[str]) -> tuple[str, ...] | None:
    """The names to answer, for `ServeSettings`.

    Args:
        listening_on: The address that the service listens on.
        extra: Further names.

    Returns:
        The names of this machine and `extra`. None, which allows all names, if the service is open
        to other machines and `extra` is empty.
    """
    names = tuple(host_name(name) for name in extra)
    if not names and host_name(listening_on) not in LOOPBACK:
        return None
    return (*LOOPBACK, *names)


def host_name(value: str) -> str:
    """The name in a Host header, in lower case, without port, brackets or final dot."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    name, _, _ = value.partition(":") if value.count(":") == 1 else (value, "", "")
    return name.rstrip(".")


def is_allowed(host: str, allowed: Iterable[str]) -> bool:
    """Whether a name is allowed. `*.example.org` allows the names below it, `*` all."""
    return any(
        host.endswith(name[1:]) if name.startswith("*.") else name in (host, ANY)
        for name in allowed
    )
