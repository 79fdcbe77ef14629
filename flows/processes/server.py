"""Finds the Prefect server to which a run reports, before the flow is imported. Errors are messages of one line."""

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
ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception|Refused)\b.*", re.MULTILINE)  # the last line of a traceback
TIMEOUT_SECONDS = 10  # a server has to answer within this time
SET_HOME = "set PREFECT_HOME to a folder that can be written, or PREFECT_API_URL to a running server"
REASONS = {  # a text in the temporary server's output: (what it means, what to do next)
    "Can't locate revision": (
        "its database was made by a newer Prefect than this one",
        "set PREFECT_HOME to another folder, or PREFECT_API_URL to a running server",
    ),
    "file is not a database": ("its database is broken", "set PREFECT_HOME to another folder, or move that file away"),
    "unable to open database file": ("its database cannot be opened", SET_HOME),
    "readonly database": ("its database cannot be written", SET_HOME),
    "database or disk is full": ("the disk of its database is full", "make room there, or " + SET_HOME),
}


def find_server() -> None:
    """Checks that the server of PREFECT_API_URL answers. If none is set, starts a temporary server and prints that.

    Raises:
        PipelineError: the server does not answer or requires a password, or a temporary server cannot start.
    """
    try:
        with warnings.catch_warnings():
            # `start_temporary` raises an error for it if the directory is needed
            warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
            from prefect.settings import get_current_settings

            url = get_current_settings().api.url
    except (OSError, RuntimeError) as error:  # the folder of the settings cannot be read
        raise PipelineError(f"Prefect cannot read its settings ({error}): {SET_HOME}") from error
    if url is not None:
        check_server(url)
        return
    print(
        "No Prefect server is set: starting a temporary one for this run, about 10 s, the first time 20 "
        "(see docs/prefect.md: On one machine)"
    )
    start_temporary()


def check_server(url: str) -> None:
    """Sends a request with Prefect's client, which uses all of Prefect's settings: address, certificates, password.

    Raises PipelineError if the server does not answer or requires a password.
    """
    from httpx import HTTPError, HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_SECONDS}) as client,
        ):
            client.read_flows(limit=1)  # not `health`, which requires no password
    except HTTPStatusError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        if error.response.status_code in (401, 403):
            raise PipelineError(
                f"the Prefect server at PREFECT_API_URL = {url} requires a password ({answer}): set "
                "PREFECT_API_AUTH_STRING=user:password as on the server, or PREFECT_API_KEY for Prefect Cloud"
            ) from error
        raise no_answer_error(url, f"{answer}; the address ends in /api") from error
    except (HTTPError, OSError, ValueError) as error:
        raise no_answer_error(url, str(error) or type(error).__name__) from error


def no_answer_error(url: str, reason: str) -> PipelineError:
    return PipelineError(
        f"no Prefect server answers at PREFECT_API_URL = {url} ({reason}): start it with `prefect server start`, "
        "or unset PREFECT_API_URL to run with a temporary server"
    )


def start_temporary() -> None:
    """Starts the temporary server that Prefect's client would start itself, with three differences: Ctrl-C in a
    terminal does not end the server before this process; its output does not fill the terminal; and it is started
    only once, while Prefect would start a server that failed again and again.

    Raises:
        PipelineError: the server does not start.
    """
    from prefect.settings import get_current_settings

    home = get_current_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise PipelineError(f"the temporary Prefect server has no folder to write ({error}): {SET_HOME}") from error
    from prefect.server.api.server import SubprocessASGIServer

    class TemporaryServer(SubprocessASGIServer):
        def find_available_port(self) -> int:
            if self.server_process is not None:
                raise RuntimeError(f"it ended with exit code {self.server_process.returncode}")
            return super().find_available_port()

    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # the server inherits the mask
    with tempfile.TemporaryFile() as log:
        try:
            with redirect_output(log):
                TemporaryServer().start()
        except Exception as error:  # of any kind: no run is possible without a server
            log.seek(0)
            raise start_error(log.read().decode(errors="replace"), error, str(home)) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


@contextmanager
def redirect_output(file: IO[bytes]) -> Iterator[None]:
    """While the block runs, send the output of this process, and of the processes that it starts, to the file."""
    sys.stdout.flush()
    saved = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        yield
    finally:
        for number, old in zip((1, 2), saved, strict=True):
            os.dup2(old, number)
            os.close(old)


def start_error(output: str, error: Exception, home: str) -> PipelineError:
    """Returns an error of one line: a known reason and what to do next, or else the last line of a traceback."""
    for text, (reason, hint) in REASONS.items():
        if text in output:
            message = f"the temporary Prefect server does not start: {reason} (PREFECT_HOME = {home}): {hint}"
            return PipelineError(message)
    reasons = [*ERROR_LINE.findall(output), str(error).splitlines()[0]]
    return PipelineError(
        f"the temporary Prefect server does not start ({reasons[0]}): start one with `prefect server start`, "
        "which prints more, and set PREFECT_API_URL to its address"
    )


def set_default_settings() -> None:
    """Sets the Prefect settings that a run needs, except those that the user has set."""
    # a first start takes longer than Prefect's default of 20 s
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach a server on this machine's loopback
        hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        wanted = [*filter(None, hosts.split(",")), *LOOPBACK]
        os.environ[name] = hosts if hosts.strip() == "*" else ",".join(dict.fromkeys(wanted))
