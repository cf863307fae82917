"""The metrics for Prometheus."""

from docsite.markdown import code, page, table
from docsite.stand_ins import NOTHING_RUNS
from letta_matrix.app.metrics import Metrics

TITLE = "Metrics"


def text() -> str:
    """The page."""
    metrics = Metrics(NOTHING_RUNS, NOTHING_RUNS, NOTHING_RUNS).all()
    return page(
        TITLE,
        "At `GET /metrics` of port 8004, in the format of Prometheus: [monitoring](../how-to/"
        "monitoring.md) tells how to read and use them. Counters begin at 0 when the bridge "
        "starts.",
        table(
            ("name", "type", "labels", "what it is"),
            ((code(it.name), it.kind, ", ".join(map(code, it.labels)), it.says) for it in metrics),
        ),
    )
