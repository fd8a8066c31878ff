"""Runs the application until Ctrl-C or SIGTERM."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp

from reserve.errors import UsageError

_GRACE_SECONDS = 2
"""How long uploads and videos on their way may take to end."""
_CONNECTIONS = 128

logger = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens for the server, before anything slow is loaded. `port` 0 takes a free one.

    Raises UsageError if the address cannot be had.
    """
    try:
        if not 0 <= port < 2**16:
            raise OverflowError("a port is from 0 to 65535")
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen at {host} port {port}: {reason}; choose with --host and --port") from error
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(app: ASGIApp, listening: socket.socket, on_end: Callable[[], None]) -> None:
    """Serves `app` until a signal ends it, which is the normal end: `on_end` is called first, requests are finished or
    cut off, the application shuts down, and the function returns. SIGTERM goes on to its former handler."""
    import uvicorn

    class Server(uvicorn.Server):
        stopped_by: signal.Signals | None = None

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.stopped_by = signal.Signals(sig)
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            on_end()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = Server(config)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # which does not come where SIGINT was ignored, as in the background of a script
        server.stopped_by = signal.SIGINT
    if server.stopped_by is not None:
        logger.info("stopped by %s", server.stopped_by.name)
