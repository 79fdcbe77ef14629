"""Which Prefect server a run reports to: checked before the flow is imported; one line where there is none."""

import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from flows.errors import PipelineError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Refused)\b.*", re.MULTILINE)  # the last line of a traceback
SECONDS = 10  # within which a server answers
OTHER_HOME = "set PREFECT_HOME to a folder that can be written, or PREFECT_API_URL to a running server"
REASONS = {  # what the temporary server's output says: what that means, and what to do
    "Can't locate revision": (
        "its database was made by a newer Prefect than this one",
        "set PREFECT_HOME to another folder, or PREFECT_API_URL to a running server",
    ),
    "file is not a database": ("its database is broken", "set PREFECT_HOME to another folder, or move that file away"),
    "unable to open database file": ("its database cannot be opened", OTHER_HOME),
    "readonly database": ("its database cannot be written", OTHER_HOME),
    "database or disk is full": ("there is no room for its database", "make room there, or " + OTHER_HOME),
}


def find_server() -> None:
    """Check that the server asked for answers; where none is set, start a temporary one and say so.

    Raises:
        PipelineError: a server is set and does not answer, or wants a password; a temporary one cannot start.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Failed to create the Prefect home directory"
            )  # we say it where it matters
            from prefect.settings import get_current_settings

            url = get_current_settings().api.url
    except (OSError, RuntimeError) as error:  # the folder of its settings
        raise PipelineError(f"Prefect cannot read its settings ({error}): {OTHER_HOME}") from error
    if url is not None:
        ask(url)
        return
    print(
        "No Prefect server is set: starting a temporary one for this run, about 10 s, the first time 20 "
        "(see docs/prefect.md: On one machine)"
    )
    start_temporary()


def ask(url: str) -> None:
    """By Prefect's own client, so with all that its settings say of the address, certificates and a password."""
    from httpx import HTTPError, HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client,
        ):
            client.read_flows(limit=1)  # `health` asks for no password
    except HTTPStatusError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        if error.response.status_code in (401, 403):
            raise PipelineError(
                f"the Prefect server at PREFECT_API_URL = {url} wants a password ({answer}): set "
                "PREFECT_API_AUTH_STRING=user:password as on the server, or PREFECT_API_KEY for Prefect Cloud"
            ) from error
        raise no_answer(url, f"{answer}; the address ends in /api") from error
    except (HTTPError, OSError, ValueError) as error:
        raise no_answer(url, str(error) or type(error).__name__) from error


def no_answer(url: str, why: str) -> PipelineError:
    return PipelineError(
        f"no Prefect server answers at PREFECT_API_URL = {url} ({why}): start it with `prefect server start`, "
        "or unset PREFECT_API_URL to run with a temporary one"
    )


def start_temporary() -> None:
    """The server that Prefect's client would start itself, but one that Ctrl-C in a terminal does not end before us,
    whose output does not fill the terminal, and that is started once: Prefect starts one that failed again and again.

    Raises:
        PipelineError: it does not start.
    """
    from prefect.settings import get_current_settings

    home = get_current_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise PipelineError(f"the temporary Prefect server has no folder to write ({error}): {OTHER_HOME}") from error
    from prefect.server.api.server import SubprocessASGIServer

    class Temporary(SubprocessASGIServer):
        def find_available_port(self) -> int:
            if self.server_process is not None:
                raise RuntimeError(f"it ended with exit code {self.server_process.returncode}")
            return super().find_available_port()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # what we start inherits it
    with tempfile.TemporaryFile() as log:
        try:
            with output_to(log):
                Temporary().start()
        except Exception as error:  # whatever it is: a run without a server cannot be
            log.seek(0)
            raise failed_start(log.read().decode(errors="replace"), error, str(home)) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def output_to(file: IO[bytes]) -> Iterator[None]:
    """Of the processes that are started in the meantime."""
    sys.stdout.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)


def failed_start(output: str, error: Exception, home: str) -> PipelineError:
    """In one line: the reason and what to do where it is a known one, else the last line of its traceback."""
    for words, (what, do) in REASONS.items():
        if words in output:
            return PipelineError(f"the temporary Prefect server does not start: {what} (PREFECT_HOME = {home}): {do}")
    reasons = [*ERROR.findall(output), str(error).splitlines()[0]]
    return PipelineError(
        f"the temporary Prefect server does not start ({reasons[0]}): start one with `prefect server start`, which "
        "says more, and set PREFECT_API_URL to it"
    )


def prefer() -> None:
    """Settings that a run needs and Prefect's defaults do not give; the user's own come first."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")  # 20: too short for a first start
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach what listens on our loopback
        given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        wanted = [*filter(None, given.split(",")), *LOOPBACK]
        os.environ[name] = given if given.strip() == "*" else ",".join(dict.fromkeys(wanted))
