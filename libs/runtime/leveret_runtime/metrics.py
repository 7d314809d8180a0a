"""What every service counts, and what is read when somebody asks.

Counters and histograms are module-level objects, made with `registry=REGISTRY`. What would have to be counted again and
again though nobody looks, such as rows of a table, is read by a sampler at each look. Labels have few values, and none
that a stranger can choose without end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Metric
from prometheus_client.registry import Collector

from leveret_runtime.away import Away
from leveret_runtime.health import HEALTH, Health

log = structlog.get_logger(__name__)

#: Seconds a sampler may take. Less than the 10 s after which Prometheus gives a look up.
SAMPLE_LIMIT = 5.0

#: For times of messages, transactions and small requests, in seconds.
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: For times of machines and builds.
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
#: For times of waiting in line.
LONG = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

DEAD_LETTERS = Counter(
    "leveret_dead_letters", "Messages that could not be read and were filed, by queue.", ["queue"], registry=REGISTRY
)
SAMPLES_FAILED = Counter(
    "leveret_samples_failed", "Looks at which a sampler gave nothing: database away, or too slow.", registry=REGISTRY
)

Sampler = Callable[[], Awaitable[Iterable[Metric]]]
_samplers: list[Sampler] = []


@contextmanager
def sampled(sampler: Sampler) -> Iterator[None]:
    """Have `sampler` asked at each look, for the time of the block. It may raise Away."""
    _samplers.append(sampler)
    try:
        yield
    finally:
        _samplers.remove(sampler)


def gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    """Make a family of one value, for a sampler."""
    return GaugeMetricFamily(name, help_, value=value)


async def page(accept: str) -> tuple[bytes, str]:
    """Give all there is, and its content type, in the format that a request with this `Accept` wants."""
    encode, content_type = choose_encoder(accept)
    sampled_now = [family async for family in _samples()]
    return encode(_Found([*_of_health(HEALTH), *REGISTRY.collect(), *sampled_now])), content_type


class _Found(Collector):
    """Families that are there already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


async def _samples() -> AsyncIterator[Metric]:
    for sampler in tuple(_samplers):
        try:
            async with asyncio.timeout(SAMPLE_LIMIT):
                families = await sampler()
        except (Away, TimeoutError) as error:
            SAMPLES_FAILED.inc()
            log.warning("not sampled", reason=str(error) or f"it took longer than {SAMPLE_LIMIT:g} s")
            continue
        for family in families:
            yield family


def _of_health(health: Health) -> Iterator[Metric]:
    build = GaugeMetricFamily("leveret_build_info", "The version that runs.", labels=["version"])
    build.add_metric([version("leveret")], 1)
    yield build
    yield gauge("leveret_ready", "1 where /ready answers 200, else 0.", health.ready)
    outages = CounterMetricFamily(
        "leveret_outages", "Times that something was away; each is tried again until it is back.", labels=["what"]
    )
    for what in sorted({"broker", "database"} | health.outages.keys()):
        outages.add_metric([what], health.outages[what])
    yield outages
