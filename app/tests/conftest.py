"""Chromium, a project that has been run, and the app on its export."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import sync_playwright

from app.tests.pages import Watched

ROOT = Path(__file__).parents[2]
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a project that has run.

    UNFREEZE_BROWSER_PROJECT may be the folder of a project that `python -m app.tests.hostile` has already made.
    """
    if made := os.environ.get("UNFREEZE_BROWSER_PROJECT"):
        return Path(made)
    folder = tmp_path_factory.mktemp("project")
    subprocess.run([ROOT / ".venv/bin/python", "-m", "app.tests.hostile", folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yields the Chromium or Chrome of the machine, or else that of Playwright."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, "--no-first-run", *root])
        yield browser
        browser.close()


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Yields a function that opens an address in its own window; at the end no page may have caused trouble."""
    pages: list[Watched] = []

    def open_it(url: str, width_px: int = 1400, color_scheme: str = "light") -> Watched:
        viewport = {"width": width_px, "height": 900}
        pages.append(Watched(browser.new_page(viewport=viewport, color_scheme=color_scheme), url))
        return pages[-1]

    yield open_it
    for watched in pages:
        watched.page.close()
        assert watched.trouble == []


class Served(NamedTuple):
    url: str
    process: "subprocess.Popen[str]"
    folder: Path


@pytest.fixture(scope="session")
def served(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yields the app, started with environment variables that would open Gradio to the network.

    At the end the app must have removed its temporary files.
    """
    folder = tmp_path_factory.mktemp("tmp")
    opening = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/"}
    command = [sys.executable, "-m", "app", "--port", "7869", "--model", str(project / "data/export")]
    environment = os.environ | opening | {"TMPDIR": str(folder)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "Try the model: http://127.0.0.1:7869 (Ctrl-C ends it)\n"
        yield Served("http://127.0.0.1:7869", process, folder)
        process.terminate()
    assert list(folder.iterdir()) == []
