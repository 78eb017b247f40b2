"""Notice that a client has left while its request is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request


@asynccontextmanager
async def on_disconnect(request: Request, call: Callable[[], None]) -> AsyncIterator[None]:
    """Have something called, in the event loop, if the client leaves while the block lasts.

    Parameters
    ----------
    request : whose body has been read to its end
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        call()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
