"""Asyncio versions of `Model`'s calls, run in threads.

The engines release the GIL while they compute, so the event loop keeps running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.text.streaming import Stream


class AsyncCalls:
    """The asyncio methods of `Model`.

    A cancelled task stops waiting immediately. A stream then ends at its next token; a running
    `agenerate` call runs to its end in its thread.
    """

    if TYPE_CHECKING:

        def generate(self, texts: Any, **arguments: Any) -> Any:
            """See `Model.generate`."""

        def stream(self, text: str, **arguments: Any) -> Stream[Generation]:
            """See `Model.stream`."""
            ...

    @overload
    async def agenerate(self, texts: str, **arguments: Any) -> Generation: ...

    @overload
    async def agenerate(self, texts: Sequence[str], **arguments: Any) -> list[Generation]: ...

    async def agenerate(self, texts: str | Sequence[str], **arguments: Any) -> Any:
        """`Model.generate` without blocking the event loop; same arguments, result and errors.

        Args:
            texts: A text, or a list of texts.
            **arguments: See `Model.generate`.
        """
        import asyncio  # takes 30 ms

        return await asyncio.to_thread(self.generate, texts, **arguments)

    async def astream(self, text: str, **arguments: Any) -> AsyncIterator[str]:
        """`Model.stream` without blocking the event loop; yields pieces of text.

        Args:
            text: The input.
            **arguments: See `Model.stream`.

        Example:
            >>> async for piece in model.astream("some text"):
            ...     print(piece, end="", flush=True)
        """
        import asyncio

        stream = await asyncio.to_thread(self.stream, text, **arguments)
        try:
            while (piece := await asyncio.to_thread(next, stream, None)) is not None:
                yield piece
        finally:
            stream.cancel()
