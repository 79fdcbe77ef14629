"""Which Prefect server a run reports to; said before Prefect is imported, for its settings are read then."""

import os
import signal
from urllib.error import URLError
from urllib.request import urlopen

from flows.errors import PipelineError


def find_server() -> None:
    """Check that the server asked for answers; where none is set, start a temporary one and say so.

    Raises:
        PipelineError: a server is set and does not answer.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        print(
            "No Prefect server is set: starting a temporary one for this run, about 10 s, the first time 20 "
            "(see README: On one machine)"
        )
        start_temporary()
        return
    try:
        with urlopen(f"{url}/health", timeout=5):  # noqa: S310 (the user's own setting)
            pass
    except (URLError, TimeoutError, ValueError) as error:
        raise PipelineError(
            f"no Prefect server answers at PREFECT_API_URL = {url} ({error}): start it with `prefect server start`, "
            "or unset PREFECT_API_URL to run with a temporary one"
        ) from error


def start_temporary() -> None:
    """The server that Prefect's client would start itself, but one that Ctrl-C in a terminal does not end before us."""
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # what we start inherits it
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prefer() -> None:
    """Settings that a run needs and Prefect's defaults do not give; the user's own come first."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")  # 20: too short for a first start
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
