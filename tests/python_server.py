"""A stand-in for starting `python`: a server that has torch and timm imported and forks a child for each command.

Only the tests use it, for speed: a stage spends 4 s on imports and 0.3 s on drawn pictures. The child runs the same
module with the same arguments, folder, environment and files; `test_demo.py` runs the pipeline without it.
Usage: python -m tests.python_server SOCKET. The shim that takes python's place on PATH is `SHIM`.
"""

import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

SHIM = """#!{python} -SE
import array, json, os, signal, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({socket!r})
call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
fds = array.array("i", [0, 1, 2])
s.sendmsg([len(call).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
s.sendall(call)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: s.send(bytes([number])))
sys.exit(int(s.recv(4) or b"1"))
"""


def preload() -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import timm  # noqa: F401
    import torch.optim  # noqa: F401
    import tqdm  # noqa: F401
    from PIL import ImageOps  # noqa: F401
    from pydantic import BaseModel, TypeAdapter  # noqa: F401
    from ruamel.yaml import YAML  # noqa: F401

    gc.freeze()  # else the first collection in each child walks and copies all of torch


def run_child(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """`python -m module ...` in this process; returns the exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv = arguments[1:]
    try:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # what the interpreter itself does
        traceback.print_exc()
        return 1
    return 0


def pass_on(connection: socket.socket) -> None:
    """Signals that the shim gets are this process's; where it is killed, so is this."""
    while number := connection.recv(1):
        os.kill(os.getpid(), number[0])
    os.kill(os.getpid(), signal.SIGKILL)


def serve(path: str) -> None:
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended leave no zombie, which would seem alive
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        header, fds, _, _ = socket.recv_fds(connection, 4, 3)
        call = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            threading.Thread(target=pass_on, args=(connection,), daemon=True).start()
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
                os.close(fd)
            sys.executable = str(Path(path).with_name("python"))  # a stage that starts others finds the shim too
            code = run_child(*json.loads(call))
            sys.stdout.flush()
            sys.stderr.flush()
            connection.sendall(str(code).encode())
            os._exit(code)
        for fd in fds:
            os.close(fd)
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
