"""The model card: README.md with YAML metadata, as Hugging Face reads it (huggingface.co/docs/hub/model-cards)."""

import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
# The names of metrics in Hugging Face's library `evaluate`. Other metrics have the same name as in model.json.
METRIC_TYPES = {"accuracy": "accuracy", "macro_f1": "f1", "mcc": "matthews_correlation"}


def card(about: dict[str, Any]) -> str:
    """Returns the text of the model card. `about` is the content of model.json."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    environment.filters["cell"] = lambda text: " ".join(str(text).replace("|", "\\|").split())
    numbers = numeric_metrics(about["metrics"])
    facts = Markup(front_matter(about, numbers))  # noqa: S704 (YAML, not HTML)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(about, front=facts, numbers=numbers)
    return f"{text}\n"


def quote_strings(facts: Any) -> Any:
    """Quotes all strings, because Hugging Face reads YAML 1.1, where an unquoted `no` is false."""
    if isinstance(facts, dict):
        return {key: quote_strings(value) for key, value in facts.items()}
    if isinstance(facts, list):
        return [quote_strings(value) for value in facts]
    return DoubleQuotedScalarString(facts) if isinstance(facts, str) else facts


def numeric_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def front_matter(about: dict[str, Any], numbers: dict[str, float]) -> str:
    """Returns the YAML between the lines of dashes.

    The model's licence is the licence of the training data, which also applies to the model.
    """
    onnx = [] if "missing" in about["onnx"] else ["onnx"]
    facts = {
        "license": about["data"]["license"],
        "library_name": (onnx or ["timm"])[0],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", *onnx, "safetensors", about["backbone"]["name"]],
        "datasets": [about["data"]["name"]],
        "metrics": [METRIC_TYPES[name] for name in numbers if name in METRIC_TYPES],
        "model-index": [
            {
                "name": f"{about['data']['name']} classifier",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "type": about["data"]["name"],
                            "name": about["data"]["name"],
                            "split": "validation",
                            "args": {"n": about["data"]["n_valid"]},
                        },
                        "metrics": [
                            {"type": METRIC_TYPES.get(name, name), "name": name, "value": value}
                            for name, value in numbers.items()
                        ],
                    }
                ],
            }
        ],
    }
    yaml, stream = YAML(typ="rt"), io.StringIO()
    yaml.dump(quote_strings(facts), stream)
    return stream.getvalue().strip()
