"""A page to try the exported model. It has its own environment: gradio needs other versions than Prefect."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, else ONNX Runtime reports each session to Microsoft
