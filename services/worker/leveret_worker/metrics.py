"""What a worker counts, and what it holds when somebody looks."""

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from leveret_runtime.metrics import QUICK, REGISTRY, SLOW, Metric, Sampler, gauge

if TYPE_CHECKING:
    from leveret_worker.worker import Worker

BOOT_SECONDS = Histogram(
    "leveret_worker_boot_seconds",
    "From the grant to the answer of a guest of this image; `how`: restored, booted, or process.",
    ["image", "arch", "how"],
    buckets=SLOW,
    registry=REGISTRY,
)
SETTLE_SECONDS = Histogram(
    "leveret_worker_settle_seconds",
    "From the end of a build of this image until its logs, artifacts and result are delivered and settled.",
    ["image"],
    buckets=(*QUICK, 30.0, 60.0, 300.0),
    registry=REGISTRY,
)
BUILDS_ENDED = Counter(
    "leveret_worker_builds_ended",
    "Builds that have ended here, by result (handed-back: none) and reason.",
    ["result", "reason"],
    registry=REGISTRY,
)
STARTS_FAILED = Counter(
    "leveret_worker_starts_failed", "Machines that did not come up; a build gets three.", registry=REGISTRY
)
SENT_BYTES = Counter(
    "leveret_worker_sent_bytes", "Bytes of logs and artifacts that the broker has taken.", ["kind"], registry=REGISTRY
)


def sampler(worker: "Worker") -> Sampler:
    """Give what samples `worker`."""

    async def sample() -> list[Metric]:
        held = GaugeMetricFamily(
            "leveret_worker_grants", "Grants held, by the state of their attempts.", labels=["state"]
        )
        for state, number in sorted(worker.states().items()):
            held.add_metric([state], number)
        return [
            gauge("leveret_worker_slots", "Jobs that may run at the same time.", worker.slots.count),
            gauge("leveret_worker_free_slots", "Slots that a job may be granted on.", len(worker.slots.tokens)),
            gauge("leveret_worker_draining", "1 where it takes no new jobs.", worker.draining),
            gauge(
                "leveret_worker_unconfirmed_bytes",
                "Spooled bytes of logs and artifacts that the broker has not taken yet.",
                worker.unconfirmed,
            ),
            held,
        ]

    return sample
