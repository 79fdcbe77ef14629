"""Checks of every page: it sends no request to another host, reports no error, and nothing is cut off or pale."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")


class Watched:
    """A page. `trouble` lists what the page must not do: send requests to other hosts, report errors, open dialogs."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.trouble = page, list[str]()
        here = urlsplit(url)
        page.on("request", lambda request: self.on_request(request.url, here.scheme, here.netloc))
        page.on("console", lambda line: self.on_console(line.type, line.text))
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("dialog", self.on_dialog)
        page.goto(url)

    def on_request(self, url: str, scheme: str, host: str) -> None:
        to = urlsplit(url)
        if to.scheme not in ("data", "blob") and (to.scheme, to.netloc) != (scheme, host):
            self.trouble.append(f"request: {url[:200]}")

    def on_console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.trouble.append(f"console: {text}")

    def on_dialog(self, dialog: Any) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> list[str]:
        """Returns descriptions of everything that is cut off, broken or hard to read."""
        found: list[str] = self.page.evaluate(CHECKS)
        return found
