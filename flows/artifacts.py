"""What a run shows on its page in Prefect: the table of stages, metrics, plots, and where the rest lies."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.table import Row, literal, markdown

METRICS = Path("data/evaluate/metrics.json")
PLOTS = {
    "range-test-head": Path("data/lr_find/curve.png"),
    "range-test-all-layers": Path("data/unfreeze/curve.png"),
    "confusion": Path("data/evaluate/confusion.png"),
}
UP_TO_DATE = ("executed", "restored", "unchanged")


def publish(rows: Sequence[Row]) -> None:
    """Of results only those whose stage is up to date: an older run's must not stand on this one's page."""
    create_markdown_artifact(markdown(rows), key="stages", description="What each stage did, and why")
    fresh = {row.stage for row in rows if row.state in UP_TO_DATE}
    if METRICS.parts[1] in fresh and METRICS.exists():
        metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
        table = [{"metric": name, "value": value} for name, value in metrics.items()]
        create_table_artifact(table, key="metrics", description="On the validation pictures")
        report = METRICS.with_name("report.html")
        where = (report if report.exists() else report.parent).resolve()
        create_link_artifact(
            where.as_uri(), key="report", link_text=literal(str(where)), description="Where the results lie"
        )
    for key, path in PLOTS.items():
        if path.parts[1] in fresh and path.exists():
            # the page cannot read our disk, so the picture travels in its address
            data = base64.b64encode(path.read_bytes()).decode()
            create_image_artifact(f"data:image/png;base64,{data}", key=key, description=str(path))
