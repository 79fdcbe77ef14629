"""The page: drop a picture, see what the network makes of it."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.model import Model
from stages.vision.files.images import FORMATS, BadPictureError

MAX_FILE_MB = 20
KEPT_SECONDS = 300  # of what was dropped and shown
CSS = """
#intro, #message, #facts, #classes {overflow-wrap: anywhere}
#classes dd {white-space: nowrap}
#facts li {margin: 4px 0}
#drop .or {color: inherit}
"""
FONT = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # others are fetched

Shown = tuple[None, str, dict[str, float] | None, Image.Image | None, Image.Image | None]


def page(model: Model) -> gr.Blocks:
    """Its one event takes any file: whether that is a picture is for our own decoder to say."""

    def look(file: str) -> Shown:
        name = escape(Path(file).name)
        try:
            seen = model.look(Path(file).read_bytes())
        except (BadPictureError, MemoryError) as error:
            reason = escape(str(error)) or "not enough memory to open it"
            return None, f'<p role="alert"><strong>{name} cannot be used:</strong> {reason}.</p>', None, None, None
        unseen = "" if seen.heat else " (Grad-CAM: no positive evidence for this class)"
        return None, f'<p role="status">{name}{unseen}</p>', seen.probabilities, seen.square, seen.heat

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
        file.upload(look, file, [file, message, label, square, heat], api_visibility="private")
    return blocks.queue(max_size=20, default_concurrency_limit=1)


def words(classes: list[str]) -> str:
    few = len(classes) <= 5
    return f"{', '.join(classes[:-1])} and {classes[-1]} apart" if few else f"{len(classes)} classes apart"


def facts(about: dict[str, Any]) -> str:
    """HTML: what the model is, how good, and what it cannot do."""
    data, metrics, size_px = about["data"], about["metrics"], about["preprocessing"]["square"]["size_px"]
    sure = about["confidence"]["mean_probability_of_class_named"]
    lines = [
        f"Classes: {', '.join(about['task']['classes'])}.",
        f"Accuracy {metrics['accuracy']:.3f}, log loss {metrics['log_loss']:.3f} on {data['n_valid']:,} pictures that "
        f"it was not trained on; the probability of the class that it names is {sure:.2f} in the mean.",
        f"Trained on {data['n_train']:,} pictures: {data['name']} ({data['license']}).",
        f"Network: {about['backbone']['name']}, which sees the centre square at {size_px} x {size_px} pixels.",
        "It names one of its classes whatever the picture shows: a picture of something else gets one too.",
        "Grad-CAM shows where the likeliest class was seen, in as few places as the network's last map has. It is no "
        "outline and no proof.",
    ]
    return f"<h2>The model</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
