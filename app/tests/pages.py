"""What every page promises: it asks nobody else, complains of nothing, and nothing on it is cut off or pale."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")


class Watched:
    """A page, and in `trouble` what it must not do: ask another host, report errors, open dialogs."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.trouble = page, list[str]()
        here = urlsplit(url)
        page.on("request", lambda request: self.asked(request.url, here.scheme, here.netloc))
        page.on("console", lambda line: self.said(line.type, line.text))
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("dialog", self.dialog)
        page.goto(url)

    def asked(self, url: str, scheme: str, host: str) -> None:
        to = urlsplit(url)
        if to.scheme not in ("data", "blob") and (to.scheme, to.netloc) != (scheme, host):
            self.trouble.append(f"request: {url[:200]}")

    def said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.trouble.append(f"console: {text}")

    def dialog(self, dialog: Any) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> list[str]:
        """What is cut off, broken or hardly to be read, in words."""
        found: list[str] = self.page.evaluate(CHECKS)
        return found
