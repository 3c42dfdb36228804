"""A port, and the server on it."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from nanogpt.errors import UserError
from nanogpt.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

PATIENCE = 3  # seconds that answers may still take once the server is told to end


def bind(settings: ServeSettings) -> socket.socket:
    """The socket to listen on. Raises UserError if the port is taken or the host is not ours."""
    listener = None
    try:
        kind = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(kind[0])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(kind[4])
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        if listener:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; "
            "use another with --port, or --port 0 for any that is free"
        ) from None
    return listener


def address(listener: socket.socket, host: str) -> str:
    """Where a socket can be reached, as a URL."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def make_server(app: "FastAPI") -> uvicorn.Server:
    """A server of an app, quiet unless something fails: `server.run(sockets=[bind(settings)])`.

    It ends on Ctrl-C and SIGTERM, which then reach whoever called it.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(is_failure)
    return uvicorn.Server(config)


def is_failure(record: logging.LogRecord) -> bool:
    """Whether to log what uvicorn says. Answers that are given up at the end are no failure."""
    given_up = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not given_up and not record.getMessage().startswith("Cancel ")
