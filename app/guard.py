"""Pages of other sites, which a browser lets send to loopback too, get nothing from this one and send nothing to it."""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPagesOnly:
    """Browsers say where a request comes from; what is no browser says nothing. A link to the page is followed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and foreign(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("not from another page", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def foreign(method: str, headers: Headers) -> bool:
    """Older browsers say where a page comes from by Origin alone."""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{headers.get('host')}":
        return True
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (None, "document")
    link = method == "GET" and followed
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not link
