"""Several answers at once without blocking the event loop: python async_app.py ARTIFACT text…"""

import asyncio
import sys

from edge.runtime import load


async def main(artifact: str, *texts: str) -> None:
    with load(artifact) as model:
        answers = await asyncio.gather(*(model.agenerate(text) for text in texts))
        for answer in answers:
            print(answer.text)
        # The last one again, piece by piece; whoever waits for it can be cancelled at any time.
        async with asyncio.timeout(10):
            async for piece in model.astream(texts[-1]):
                print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
