"""`await model.agenerate(…)`: the same calls for asyncio, made in threads.

The engines release the GIL while they compute, so the event loop goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from edge.runtime.generation import Generation
    from edge.runtime.text.streaming import Stream


class AsyncCalls:
    """What `Model` has for asyncio.

    A task that is cancelled stops waiting at once; a stream ends at its next token, while a call
    of `agenerate` that has begun runs to its end in its thread.
    """

    if TYPE_CHECKING:

        def generate(self, texts: Any, **arguments: Any) -> Any: ...

        def stream(self, text: str, **arguments: Any) -> Stream[Generation]: ...

    @overload
    async def agenerate(self, texts: str, **arguments: Any) -> Generation: ...

    @overload
    async def agenerate(self, texts: Sequence[str], **arguments: Any) -> list[Generation]: ...

    async def agenerate(self, texts: str | Sequence[str], **arguments: Any) -> Any:
        """`generate` without blocking the event loop; arguments and errors are the same."""
        import asyncio  # 30 ms that only its users pay for

        return await asyncio.to_thread(self.generate, texts, **arguments)

    async def astream(self, text: str, **arguments: Any) -> AsyncIterator[str]:
        """`stream` without blocking the event loop: `async for piece in model.astream(text)`."""
        import asyncio

        stream = await asyncio.to_thread(self.stream, text, **arguments)
        try:
            while (piece := await asyncio.to_thread(next, stream, None)) is not None:
                yield piece
        finally:
            stream.cancel()
