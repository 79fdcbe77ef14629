"""`python -m app`: serves the page on loopback only."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app", description="A page to try the exported model.")
    parser.add_argument("--model", type=Path, default=Path("data/export"), help="folder of model.onnx and model.json")
    parser.add_argument("--port", type=port, default=7860)
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # such variables could open the page to the network or share files
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the exit leaves the `with` block, which removes the folder
    with tempfile.TemporaryDirectory(prefix="unfreeze-app-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        os.environ["NO_PROXY"] = LOOPBACK  # Gradio checks that this variable is set
        serve(arguments.model, arguments.port)


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port: expected a number from 1 to 65535")
    return int(text)


def serve(folder: Path, port: int) -> None:
    """Serves the page until Ctrl-C."""
    from app.model import Model

    try:
        model = Model(folder)
    except (OSError, ValueError) as error:
        problem = f"no {error.filename}" if isinstance(error, FileNotFoundError) else f"{folder}: {error}"
        sys.exit(f"app: {' '.join(problem.split())}: run `dvc repro export`, which makes model.onnx and model.json")

    from gradio.themes import Default
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from app.guard import OwnPagesOnly
    from app.page import CSS, FONT, MAX_FILE_MB, page

    blocks = page(model)
    # Rejects requests for other host names, which may also point to loopback.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])
    try:
        blocks.launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            max_file_size=f"{MAX_FILE_MB}mb",
            app_kwargs={"middleware": [hosts, Middleware(OwnPagesOnly)]},
            theme=Default(**FONT),
            css=CSS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        sys.exit(f"app: port {port} is in use: stop the program that uses it, or choose another port with --port")
    print(f"Try the model: http://{LOOPBACK}:{port} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    main()
