"""What a run shows on its page in Prefect: the table of stages, metrics, plots, and where the rest lies."""

import base64
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.pages.table import Row, literal, markdown

METRICS = Path("data/evaluate/metrics.json")
PLOTS = {
    "range-test-head": Path("data/lr_find/curve.png"),
    "range-test-all-layers": Path("data/unfreeze/curve.png"),
    "confusion": Path("data/evaluate/confusion.png"),
}
UP_TO_DATE = ("executed", "restored", "unchanged")


def publish(rows: Sequence[Row]) -> None:
    """Results only of stages that are up to date: an older run's must not be on this one's page."""
    create_markdown_artifact(markdown(rows), key="stages", description="What each stage did, and why")
    fresh = {row.stage for row in rows if row.state in UP_TO_DATE}
    if METRICS.parts[1] in fresh and METRICS.exists():
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
        table = [{"metric": name, "value": value} for name, value in metrics.items()]
        create_table_artifact(table, key="metrics", description="On the validation pictures")
        report = METRICS.with_name("report.html")
        where = (report if report.exists() else report.parent).resolve()
        # no link: a browser does not follow one from a server's page to a file
        text = f"Open in a browser on {literal(socket.gethostname())}:\n\n{literal(str(where))}"
        create_markdown_artifact(text, key="report", description="Where the report lies")
    for key, path in PLOTS.items():
        if path.parts[1] in fresh and path.exists():
            # the page cannot read this machine's disk, so the picture is in its address; and it is Markdown because
            # Prefect's second UI prints an image artifact's address across the page
            data = base64.b64encode(path.read_bytes()).decode()
            create_markdown_artifact(f"![{key}](data:image/png;base64,{data})", key=key, description=str(path))
