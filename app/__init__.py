"""A page to try the exported model. It has an environment of its own: gradio wants other versions than Prefect."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported, ONNX Runtime would tell Microsoft of each session
