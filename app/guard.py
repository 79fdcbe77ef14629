"""Refuses requests from other sites' pages, which browsers allow to send requests to loopback."""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPagesOnly:
    """Browsers name the origin of a request; other programs do not, and are allowed. Links to the page work."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and foreign(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("not from another page", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def foreign(method: str, headers: Headers) -> bool:
    """True for a request from another site. Older browsers send only the header Origin."""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (None, "document")
    link = method == "GET" and followed
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not link
