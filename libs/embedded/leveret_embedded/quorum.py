"""When a quorum queue is really on disk.

RabbitMQ (seen in 3.10 and 4.0) writes the registry of its quorum queues down half a second after they were declared. A
broker killed before that starts again without their contents, confirmed messages and all.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_INTERVAL = 0.05
_LIMIT = 5.0
_LONGEST_NAME = 255


def registered_name(vhost: str, queue: str) -> bytes:
    """What the registry calls a queue."""
    return f"{'%2F' if vhost == '/' else vhost}_{queue}".encode()


def quorum_queues(definitions: Mapping[str, Any]) -> set[bytes]:
    """The registered names of the quorum queues in a definitions document."""
    return {
        registered_name(queue["vhost"], queue["name"])
        for queue in definitions.get("queues", ())
        if queue.get("arguments", {}).get("x-queue-type") == "quorum"
    }


async def until_on_disk(data: Path, names: Iterable[bytes]) -> None:
    """Waits until the registry below the folder `data` holds all `names`; nobody tells us, so look again and again.

    Gives up after five seconds, because a later RabbitMQ may keep its registry elsewhere.
    """
    awaited = {name for name in names if len(name) <= _LONGEST_NAME}  # longer ones are registered by a digest
    try:
        async with asyncio.timeout(_LIMIT):
            while awaited:
                for registry in data.glob("*/quorum/*/names.dets"):
                    content = registry.read_bytes()
                    awaited = {name for name in awaited if name not in content}
                if awaited:
                    await asyncio.sleep(_INTERVAL)
    except TimeoutError:
        return
