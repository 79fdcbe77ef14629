"""Puts the results on the run's page in Prefect: the table of stages, metrics, plots, and where the report is."""

import base64
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.pages.table import Row, escape_markdown, markdown

METRICS = Path("data/evaluate/metrics.json")
PLOTS = {
    "range-test-head": Path("data/lr_find/curve.png"),
    "range-test-all-layers": Path("data/unfreeze/curve.png"),
    "confusion": Path("data/evaluate/confusion.png"),
}
UP_TO_DATE_STATES = ("executed", "restored", "unchanged")


def publish(rows: Sequence[Row]) -> None:
    """Publishes the table of stages, and the results of the stages that are up to date. Results of an earlier run must
    not appear on this run's page."""
    create_markdown_artifact(markdown(rows), key="stages", description="What each stage did, and why")
    up_to_date = {row.stage for row in rows if row.state in UP_TO_DATE_STATES}
    if METRICS.parts[1] in up_to_date and METRICS.exists():
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
        table = [{"metric": name, "value": value} for name, value in metrics.items()]
        create_table_artifact(table, key="metrics", description="On the validation pictures")
        report = METRICS.with_name("report.html")
        path = (report if report.exists() else report.parent).resolve()
        # not a link, because a browser does not follow a link from a server's page to a file
        text = f"Open in a browser on {escape_markdown(socket.gethostname())}:\n\n{escape_markdown(str(path))}"
        create_markdown_artifact(text, key="report", description="Where the report is")
    for key, path in PLOTS.items():
        if path.parts[1] in up_to_date and path.exists():
            # The page cannot read this machine's disk, so the image's address contains the image. It is a Markdown
            # artifact, because Prefect's second UI prints the address of an image artifact across the page.
            data = base64.b64encode(path.read_bytes()).decode()
            create_markdown_artifact(f"![{key}](data:image/png;base64,{data})", key=key, description=str(path))
