"""Rejects requests from pages of other sites, which browsers allow to send requests to loopback."""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPagesOnly:
    """Middleware that rejects requests from other sites, except links to the page.

    Browsers send the origin of a request. Other programs do not send it; their requests are allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_foreign(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("not from another page", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_foreign(method: str, headers: Headers) -> bool:
    """Returns whether a request comes from another site. Older browsers send only the header Origin."""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (None, "document")
    is_link = method == "GET" and is_navigation
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link
