"""Keeps other web sites from using the server through a visitor's browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware: checks for whom a request was meant and who made it, and adds headers to each response.

    - Host must be localhost, an address or one of `names`: a name that another site owner made point here (DNS
      rebinding) is none of them, and an address belongs to no site.
    - Requests that a browser marks as another site's are refused, whatever they ask for; following a link to the page
      is allowed.
    - Requests that change something must come from this origin if a browser sends them. Programs such as curl send
      neither Origin nor Sec-Fetch-Site; no site can use them.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self.app = app
        self.names = frozenset({"localhost", *(name.lower() for name in names)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self.app(scope, receive, send_with_headers)
            return
        status, error = refused
        await JSONResponse({"error": error}, status)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            return 421, f"{host[:200]!r} is not a name of this server; --names adds one"
        site = headers.get("sec-fetch-site")
        changes = scope["method"] not in ("GET", "HEAD")
        is_visit = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate" and not changes
        if site not in (None, "same-origin", "none") and not is_visit:
            return 403, "the request comes from another site"
        origin = headers.get("origin")
        if (
            changes
            and origin is not None
            and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower())
        ):
            return 403, "the request comes from another origin"
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
