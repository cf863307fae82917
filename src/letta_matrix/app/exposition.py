"""The metrics in the words of Prometheus."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import metrics_core
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from letta_matrix.app.metric import Figure, Histogram, Metric


class Exposition(Collector):
    """Shows metrics as they are when somebody asks, and those of any process (`process_...`)."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._process = ProcessCollector(registry=None)

    def shown(self, accept: str) -> tuple[bytes, str]:
        """All of them in a format that the header `Accept` takes, and the name of that."""
        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def collect(self) -> Iterable[metrics_core.Metric]:
        """As the library asks for them."""
        yield from map(_family, self._metrics)
        yield from self._process.collect()


def _family(metric: Metric) -> metrics_core.Metric:
    match metric:
        case Histogram():
            return _histogram(metric)
        case Figure(kind="counter"):
            family = metrics_core.CounterMetricFamily(
                metric.name, metric.says, labels=metric.labels
            )
        case Figure():
            family = metrics_core.GaugeMetricFamily(metric.name, metric.says, labels=metric.labels)
    for labels, value in metric.read().items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Histogram) -> metrics_core.Metric:
    family = metrics_core.HistogramMetricFamily(metric.name, metric.says, labels=metric.labels)
    for spans in metric.read():
        bounds = [*map(str, spans.bounds), "+Inf"]
        # At once: the database's thread may add to them.
        for labels, counts in list(spans.counts.items()):
            buckets = [*zip(bounds, map(float, accumulate(counts)), strict=True)]
            family.add_metric(labels, buckets, spans.sums[labels])
    return family
