"""The page: drop a picture to see its predicted class and Grad-CAM."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.model import Model
from stages.vision.files.images import FORMATS, BadPictureError

MAX_FILE_MB = 20
FILE_LIFETIME_SECONDS = 300  # uploaded and shown files are deleted after this time
CSS = """
#intro, #message, #facts, #classes {overflow-wrap: anywhere}
#classes dd {white-space: nowrap}
#facts li {margin: 4px 0}
#drop .or {color: inherit}
"""
FONT = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "monospace"],
}  # other fonts would be downloaded

Shown = tuple[None, str, dict[str, float] | None, Image.Image | None, Image.Image | None]


def page(model: Model) -> gr.Blocks:
    """Returns the page. Its upload accepts any file; the decoder of stages/vision decides whether it is a picture."""

    def classify(file: str) -> Shown:
        name = escape(Path(file).name)
        try:
            result = model.classify(Path(file).read_bytes())
        except (BadPictureError, MemoryError) as error:
            reason = escape(str(error)) or "not enough memory to open it"
            return None, f'<p role="alert"><strong>{name} cannot be used:</strong> {reason}.</p>', None, None, None
        note = "" if result.heat else " (Grad-CAM is empty: no region supports the predicted class)"
        return None, f'<p role="status">{name}{note}</p>', result.probabilities, result.square, result.heat

    with gr.Blocks(title="Try the model", analytics_enabled=False, delete_cache=(60, FILE_LIFETIME_SECONDS)) as blocks:
        gr.HTML(
            f"<h1>Try the model</h1><p>The model tells {escape(describe_classes(model.classes))}.</p>", elem_id="intro"
        )
        file = gr.File(label=f"A picture, up to {MAX_FILE_MB} MB", height=150, elem_id="drop")
        message = gr.HTML(f"<p>{', '.join(FORMATS)}. The picture does not leave this machine.</p>", elem_id="message")
        label = gr.Label(label="Class", num_top_classes=5, elem_id="classes")
        with gr.Row():
            square, heat = (
                gr.Image(label=label, elem_id=name, format="png", interactive=False, buttons=[], height=320)
                for name, label in (("square", "What the network sees"), ("heat", "Grad-CAM: what supports the class"))
            )
        gr.HTML(facts(model.about), elem_id="facts")
        file.upload(classify, file, [file, message, label, square, heat], api_visibility="private")
    return blocks.queue(max_size=20, default_concurrency_limit=1)


def describe_classes(classes: list[str]) -> str:
    list_all = len(classes) <= 5
    return f"{', '.join(classes[:-1])} and {classes[-1]} apart" if list_all else f"{len(classes)} classes apart"


def facts(about: dict[str, Any]) -> str:
    """Returns HTML with the description, the quality and the limits of the model."""
    data, metrics, size_px = about["data"], about["metrics"], about["preprocessing"]["square"]["size_px"]
    confidence = about["confidence"]["mean_probability_of_class_named"]
    lines = [
        f"Classes: {', '.join(about['task']['classes'])}.",
        f"Accuracy {metrics['accuracy']:.3f}, log loss {metrics['log_loss']:.3f} on {data['n_valid']:,} pictures that "
        f"the model was not trained on; the mean probability of the predicted class is {confidence:.2f}.",
        f"Trained on {data['n_train']:,} pictures: {data['name']} ({data['license']}).",
        f"Network: {about['backbone']['name']}, which sees the centre square at {size_px} x {size_px} pixels.",
        "The model predicts one of its classes for every picture, even if the picture shows something else.",
        "Grad-CAM shows which regions support the predicted class, at the coarse resolution of the network's last "
        "feature map. It is neither an outline nor a proof.",
    ]
    return f"<h2>The model</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
