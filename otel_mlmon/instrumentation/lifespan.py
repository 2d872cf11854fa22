"""Exports all signals when an ASGI server ends, for servers that leave a process without running `atexit`.

Source: ASGI specification, lifespan protocol, version 2.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation import lifecycle

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApplication: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]


def flush_on_shutdown(application: AsgiApplication) -> AsgiApplication:
    """Wraps an ASGI application so that all recorded signals are exported before its server ends.

    Needed only where docs/deploying.md says so. What the application does and answers stays as it is; one that has no
    lifespan gets none, and is flushed by nobody. Takes at most the option `shutdown_timeout_s`.

    Args:
        application: Any ASGI application, of FastAPI or Starlette for instance.

    Returns:
        An ASGI application, to be given to the server instead.
    """

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return

        async def send_after_flush(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                with guard("flush"):
                    await asyncio.get_running_loop().run_in_executor(None, lifecycle.flush_all)
            await send(message)

        await application(scope, receive, send_after_flush)

    return wrapped
