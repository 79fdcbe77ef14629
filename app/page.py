"""The page: drop a picture, see its predicted class and Grad-CAM."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.model import Model
from stages.vision.files.images import FORMATS, BadPictureError

MAX_FILE_MB = 20
KEPT_SECONDS = 300  # lifetime of uploaded and shown files
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
    """The page with one upload event, which accepts any file: our own decoder decides whether it is a picture."""

    def classify(file: str) -> Shown:
        name = escape(Path(file).name)
        try:
            result = model.classify(Path(file).read_bytes())
        except (BadPictureError, MemoryError) as error:
            reason = escape(str(error)) or "not enough memory to open it"
            return None, f'<p role="alert"><strong>{name} cannot be used:</strong> {reason}.</p>', None, None, None
        note = "" if result.heat else " (Grad-CAM: no positive evidence for this class)"
        return None, f'<p role="status">{name}{note}</p>', result.probabilities, result.square, result.heat

    with gr.Blocks(title="Try the model", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as blocks:
        gr.HTML(f"<h1>Try the model</h1><p>It tells {escape(words(model.classes))}.</p>", elem_id="intro")
        file = gr.File(label=f"A picture, up to {MAX_FILE_MB} MB", height=150, elem_id="drop")
        message = gr.HTML(f"<p>{', '.join(FORMATS)}. It does not leave this machine.</p>", elem_id="message")
        label = gr.Label(label="Class", num_top_classes=5, elem_id="classes")
        with gr.Row():
            square, heat = (
                gr.Image(label=label, elem_id=name, format="png", interactive=False, buttons=[], height=320)
                for name, label in (("square", "What it looks at"), ("heat", "Grad-CAM: where it sees the class"))
            )
        gr.HTML(facts(model.about), elem_id="facts")
        file.upload(classify, file, [file, message, label, square, heat], api_visibility="private")
    return blocks.queue(max_size=20, default_concurrency_limit=1)


def words(classes: list[str]) -> str:
    list_all = len(classes) <= 5
    return f"{', '.join(classes[:-1])} and {classes[-1]} apart" if list_all else f"{len(classes)} classes apart"


def facts(about: dict[str, Any]) -> str:
    """HTML: description, quality and limits of the model."""
    data, metrics, size_px = about["data"], about["metrics"], about["preprocessing"]["square"]["size_px"]
    confidence = about["confidence"]["mean_probability_of_class_named"]
    lines = [
        f"Classes: {', '.join(about['task']['classes'])}.",
        f"Accuracy {metrics['accuracy']:.3f}, log loss {metrics['log_loss']:.3f} on {data['n_valid']:,} pictures that "
        f"it was not trained on; the probability of the class that it names is {confidence:.2f} in the mean.",
        f"Trained on {data['n_train']:,} pictures: {data['name']} ({data['license']}).",
        f"Network: {about['backbone']['name']}, which sees the centre square at {size_px} x {size_px} pixels.",
        "It names one of its classes whatever the picture shows: a picture of something else gets one too.",
        "Grad-CAM shows where the likeliest class was seen, in as few places as the network's last map has. It is no "
        "outline and no proof.",
    ]
    return f"<h2>The model</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
