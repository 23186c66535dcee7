"""SIGTERM and SIGHUP handled as Ctrl-C is: what was measured can still be reported."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from edge.runtime.errors import EdgeError

_SIGNALS = tuple(
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


class SignalReceivedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def signal_of(error: KeyboardInterrupt) -> int:
    """The number of the signal that an interruption came from; SIGINT for Ctrl-C."""
    return error.number if isinstance(error, SignalReceivedError) else int(signal.SIGINT)


class TerminatedError(EdgeError):
    """A command ended by a signal; it exits with 128 + the signal's number, as a shell reports it.

    Args:
        number: the signal's.
        message: what was kept.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {message}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def signals_end_command(kept: Callable[[], str]) -> Iterator[None]:
    """Like `signals_as_interrupt`, and SIGTERM and SIGHUP end the command with one line.

    Args:
        kept: Says what was kept, such as "the report holds what was measured".

    Raises:
        TerminatedError: SIGTERM or SIGHUP was received.
        KeyboardInterrupt: Ctrl-C.
    """
    with signals_as_interrupt():
        try:
            yield
        except KeyboardInterrupt as error:
            number = getattr(error, "number", int(signal.SIGINT))
            if number == signal.SIGINT:
                raise
            raise TerminatedError(number, kept()) from None


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Raise SignalReceivedError, a KeyboardInterrupt, on the first SIGTERM or SIGHUP.

    Further ones are ignored until the context ends, so that a report is written completely. A
    signal that is ignored already (SIGHUP under nohup) stays ignored. Outside of the main thread,
    where Python allows no signal handlers, nothing changes.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise SignalReceivedError(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
