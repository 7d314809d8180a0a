"""What logsink counts, and how much room its storage has when somebody looks."""

from typing import TYPE_CHECKING

from prometheus_client import Counter

from leveret_runtime.metrics import REGISTRY, Metric, Sampler, gauge

if TYPE_CHECKING:
    from leveret_logsink.live import Live
    from leveret_logsink.space import Space

STORED_BYTES = Counter(
    "leveret_logsink_stored_bytes", "Bytes of chunks that were stored, by kind of stream.", ["kind"], registry=REGISTRY
)
STREAMS_SETTLED = Counter(
    "leveret_logsink_streams_settled",
    "Logs and artifacts that were proven whole (`sealed`) or given up (`gap`; it may still be sealed later).",
    ["kind", "state"],
    registry=REGISTRY,
)
HTTP_ANSWERS = Counter("leveret_logsink_http_answers", "Answers over HTTP, by status.", ["status"], registry=REGISTRY)


def sampler(space: "Space", live: "Live") -> Sampler:
    """Give what samples the storage's condition and the readers."""

    async def sample() -> list[Metric]:
        now = space.condition
        found: list[Metric] = [
            gauge("leveret_logsink_storage_open", "0 while nothing is taken, for want of room or a fault.", now.open),
            gauge("leveret_logsink_storage_floor_bytes", "Free bytes below which nothing is taken.", now.floor),
            gauge("leveret_logsink_live_readers", "Readers that follow a log over HTTP.", live.readers),
        ]
        if now.free is not None:
            found.append(gauge("leveret_logsink_storage_free_bytes", "Bytes free in the storage.", now.free))
        return found

    return sample
