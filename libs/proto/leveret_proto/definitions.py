"""RabbitMQ definitions made from the topology and the permissions: what a broker is given at its start.

The services themselves declare nothing but the worker sessions' exclusive queues and the dispatcher's canary.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from leveret_proto.permissions import Permissions
from leveret_proto.topology import EXCHANGES, QUEUES


def shape(vhost: str) -> dict[str, Any]:
    """Give exchanges, queues and bindings of `vhost` as a definitions document."""
    return {
        "exchanges": [
            {
                "name": exchange.name, "vhost": vhost, "type": "topic", "durable": True,
                "auto_delete": False, "internal": False, "arguments": {},
            }
            for exchange in EXCHANGES
        ],
        "queues": [
            {
                "name": queue.name, "vhost": vhost, "durable": True,
                "auto_delete": False, "arguments": queue.arguments(),
            }
            for queue in QUEUES
        ],
        "bindings": [
            {
                "source": exchange, "vhost": vhost, "destination": queue.name,
                "destination_type": "queue", "routing_key": pattern, "arguments": {},
            }
            for queue in QUEUES
            for exchange, pattern in queue.bindings
        ],
    }  # fmt: skip


def access(vhost: str, users: Mapping[str, Permissions]) -> dict[str, Any]:
    """Give the permissions of `users` in `vhost` as a definitions document."""
    return {
        "permissions": [
            {
                "user": name, "vhost": vhost,
                "configure": granted.configure, "write": granted.write, "read": granted.read,
            }
            for name, granted in users.items()
        ],
        "topic_permissions": [
            {"user": name, "vhost": vhost, "exchange": topic.exchange, "write": topic.write, "read": topic.read}
            for name, granted in users.items()
            for topic in granted.topics
        ],
    }  # fmt: skip


def user(name: str, password_hash: str, tags: Iterable[str] = ()) -> dict[str, Any]:
    """Give a user with RabbitMQ's salted SHA-256 password hash."""
    return {
        "name": name,
        "password_hash": password_hash,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(tags),
    }


def definitions(
    vhost: str, users: Mapping[str, tuple[str, Permissions]], administrators: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Give the whole document.

    Args:
        vhost: Leveret's virtual host.
        users: name → (password hash, permissions).
        administrators: name → password hash; they may do everything in `vhost`.
    """
    everything = Permissions(".*", ".*", ".*")
    admins = dict(administrators or {})
    return {
        "vhosts": [{"name": vhost}],
        "users": [user(name, hashed) for name, (hashed, _) in users.items()]
        + [user(name, hashed, ["administrator"]) for name, hashed in admins.items()],
        **access(vhost, {name: granted for name, (_, granted) in users.items()} | dict.fromkeys(admins, everything)),
        **shape(vhost),
    }
