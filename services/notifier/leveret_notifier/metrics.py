"""What the notifier counts, and the deliveries that wait when somebody looks."""

from prometheus_client import Counter

from leveret_notifier import store
from leveret_runtime.db import Database
from leveret_runtime.metrics import REGISTRY, Metric, Sampler, gauge

TRIES = Counter(
    "leveret_notifier_tries",
    "Tries of deliveries by action (email, webhook) and outcome: delivered, retrying, failed.",
    ["action", "outcome"],
    registry=REGISTRY,
)


def sampler(database: Database) -> Sampler:
    """Give what samples the waiting deliveries."""

    async def sample() -> list[Metric]:
        async with database.connection() as on:
            waiting = await store.waiting(on)
        return [
            gauge("leveret_notifier_waiting_deliveries", "Deliveries that have not come to an end.", waiting.number),
            gauge(
                "leveret_notifier_overdue_seconds", "How long the most overdue of them has been due.", waiting.overdue
            ),
        ]

    return sample
