"""The operator's template in a real broker: it loads, loads again, and leaves exactly the topology."""

import json
from pathlib import Path
from typing import Any

from leveret_proto import topology as t
from leveret_proto.permissions import SERVICES
from tests.support.vhosts import Vhost

TEMPLATE = Path(__file__).parents[3] / "deploy" / "rabbitmq" / "definitions.json"


async def test_the_template_loads_twice_and_leaves_the_topology(vhost: Vhost) -> None:
    for service in SERVICES:
        await vhost.api("PUT", f"users/{service}", {"password": vhost.password(service), "tags": ""})
    document = json.loads(TEMPLATE.read_text().replace('"leveret"', f'"{vhost.name}"'))
    for _ in range(2):
        await vhost.load(document)
    queues: list[dict[str, Any]] = await vhost.api("GET", f"queues/{vhost.name}")
    assert {queue["name"]: queue["arguments"] for queue in queues} == {
        queue.name: queue.arguments() for queue in t.QUEUES
    }
    exchanges = await vhost.api("GET", f"exchanges/{vhost.name}")
    ours = {(one["name"], one["type"], one["durable"]) for one in exchanges if one["name"].startswith("leveret.")}
    assert ours == {(exchange.name, "topic", True) for exchange in t.EXCHANGES}
    bindings = await vhost.api("GET", f"bindings/{vhost.name}")
    assert sorted(
        (one["source"], one["routing_key"], one["destination"]) for one in bindings if one["source"]
    ) == sorted((exchange, pattern, queue.name) for queue in t.QUEUES for exchange, pattern in queue.bindings)
    granted = await vhost.api("GET", f"vhosts/{vhost.name}/permissions")
    assert {one["user"] for one in granted} == set(SERVICES) | {vhost.broker.administrator[0]}
