"""The app listens only on loopback, serves only the page's own files, and rejects requests from other pages."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from app.tests.conftest import ROOT, Served


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, names)) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def listening(pid: int) -> list[str]:
    """Returns the addresses and ports where a process and its threads listen, in hexadecimal as in Linux's /proc."""
    links = [path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            _, here, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in links:
                found.append(here)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")
def test_it_listens_on_loopback_alone_whatever_the_environment_says(served: Served) -> None:
    assert listening(served.process.pid) == ["0100007F:1EBD"]  # 127.0.0.1:7869
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text(encoding="utf-8")
    assert children == ""


def test_files_of_the_machine_are_not_served(served: Served) -> None:
    for path in ("/etc/passwd", "README.md", str(ROOT / "params.yaml"), f"{served.folder}/../../etc/passwd"):
        assert status(f"{served.url}/gradio_api/file={path}") in (403, 404)


def test_another_page_in_the_same_browser_is_rejected(served: Served) -> None:
    upload = f"{served.url}/gradio_api/upload"
    assert status(served.url) == status(served.url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200
    assert status(served.url, Host="evil.example") == 400  # a name that was made to point to 127.0.0.1
    framed = status(served.url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")
    assert framed == 403
    assert status(upload, b"--x--", Origin="http://evil.example") == 403  # from a browser that sends no other header
    assert status(f"{served.url}/config", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors") == 403
    for mode in ("no-cors", "navigate"):
        assert status(upload, b"--x--", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode=mode) == 403
