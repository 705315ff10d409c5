"""A stand-in for a language model: it needs no network, and no key."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

_WORDS = (
    "Once upon a time there was a question. It was asked on a page, and the answer came in "
    "pieces, one after the other, until somebody had heard enough."
)


async def apieces(prompt: str) -> AsyncGenerator[str, None]:
    """Gives the pieces of an answer, which is long."""
    for word in itertools.islice(itertools.cycle(_WORDS.split()), 1000):
        await asyncio.sleep(0.05)
        yield f"{word} "
    yield f"But you asked: {prompt}"
