"""Who may ask. Everything passes here first, before a route sees it.

A page on any site can send requests to this machine, from the browser of its user. Two checks stop
it. Host: with DNS rebinding, a site makes its own name point to 127.0.0.1; so a request must name
an address, or a name of ours. Origin: a browser says which page asks; only our own pages may.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanogpt.errors import one_line
from nanogpt.serve.answers import FAILED, error_body
from nanogpt.serve.requests import ApiError
from nanogpt.serve.settings import ServeSettings

# A page may bring a policy of its own; what brings none may load and run nothing.
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
OPEN = ("/health",)  # needs no token


def error_response(path: str, error: ApiError) -> Response:
    """A mistake as JSON: in the API's form, or as one line for the explorer's page (/api)."""
    error.message = one_line(error.message)
    body = {"error": error.message} if path.startswith("/api/") else error_body(error)
    headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}
    # Escaped as ASCII: the message may quote half a character, which is no UTF-8.
    text = json.dumps(body)
    return Response(text, error.status, headers.get(error.status), "application/json")


class Guard:
    """A layer around the app: Host, Origin, token, size and time of a request, safe headers."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.cookie = f"nanogpt-{settings.port}"  # cookies do not know ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.answer(scope, receive, send_safely)
        except Exception:
            if started:
                raise
            logging.getLogger(__name__).exception("a request failed")
            response = error_response(scope["path"], ApiError(500, FAILED))
            await response(scope, receive, send_safely)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or refuse it."""
        request = Request(scope)
        try:
            self.check_place(request)
            response = self.check_token(request)
            body = b"" if response else await self.read(request, receive)
        except ApiError as error:
            response, body = error_response(request.url.path, error), b""
            response.headers["connection"] = "close"  # nobody will read what is still to come
        if response:
            await response(scope, receive, send)
        elif body is not None:
            await self.app(scope, replaying(body, receive), send)

    def check_place(self, request: Request) -> None:
        """Raise ApiError for a request to another site, or from the page of another."""
        host = request.headers.get("host", "")
        if not self.is_ours(host):
            raise ApiError(403, f"the Host {host!r} is not this server: use its address")
        origin = request.headers.get("origin")
        if origin is not None and netloc(origin) != host.lower():
            raise ApiError(403, f"pages of {origin!r} may not ask this server")

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server: by an address, or a name that it was given."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in ("localhost", self.settings.host.lower())
        return True

    def check_token(self, request: Request) -> Response | None:
        """Raise ApiError without the token. A page brings it in its address once: as a cookie then.

        That is answered by leading to the same address without it.
        """
        if not self.settings.token or request.url.path in OPEN:
            return None
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and self.is_token(given):
            rest = [item for item in request.query_params.multi_items() if item[0] != "token"]
            # Slashes at the start would make an address of another site of it.
            path = "/" + request.url.path.lstrip("/\\") + (f"?{urlencode(rest)}" if rest else "")
            response = RedirectResponse(path, 303)
            response.set_cookie(self.cookie, given, httponly=True, samesite="strict")
            return response
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(bearer.strip()):
            return None
        if self.is_token(request.cookies.get(self.cookie, "")):
            return None
        raise ApiError(401, "send the server's token: Authorization: Bearer TOKEN")

    def is_token(self, given: str) -> bool:
        """Whether it is the token, in a time that says nothing about it."""
        return hmac.compare_digest(given.encode(), self.settings.token.encode())

    async def read(self, request: Request, receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone. Raises ApiError if it is long, or late."""
        limits, body = self.settings.limits, b""
        try:
            async with asyncio.timeout(limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limits.body_bytes:
                        raise ApiError(413, f"the request has more than {limits.body_bytes} bytes")
                    if not message.get("more_body"):
                        return body
        except TimeoutError:
            raise ApiError(408, "the request did not arrive in time") from None


def netloc(origin: str) -> str:
    """Host and port of an origin; empty for one that has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def replaying(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What a route receives: the body that has been read, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
