"""RabbitMQ definitions made from the topology and the permissions: what a broker is given at its start.

The services themselves declare nothing but the worker sessions' exclusive queues.
`python -m leveret_proto.definitions --help` makes the documents that an operator loads (deploy/rabbitmq/README.md).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from leveret_proto import permissions
from leveret_proto.permissions import Permissions
from leveret_proto.topology import EXCHANGES, QUEUES

VHOST = "leveret"


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


def template(vhost: str = VHOST) -> dict[str, Any]:
    """Give what every installation has: the shape, and the four services' permissions. Their users must exist.

    Without users there are no passwords in it, and loading it again at an upgrade changes none.
    """
    granted = {str(name): permissions.service(name) for name in permissions.SERVICES}
    return {"vhosts": [{"name": vhost}], **access(vhost, granted), **shape(vhost)}


def main(arguments: list[str]) -> int:
    """Print the template or an account's permissions, or check a file. Gives the exit status: 0, or 1 (stale)."""
    parser = argparse.ArgumentParser(
        prog="python -m leveret_proto.definitions",
        description="Print definitions for `rabbitmqctl import_definitions`: the topology and the services' "
        "permissions, or those of one more account. Users are made with `rabbitmqctl add_user` before.",
    )
    parser.add_argument("--vhost", default=VHOST)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--worker", metavar="NAME", help="a worker host; the account has the worker's name")
    what.add_argument("--submitter", metavar="ACCOUNT", help="submits for OWNERs and follows them")
    what.add_argument("--operator", metavar="ACCOUNT", help="gives every command, for any owner, and sees every event")
    what.add_argument("--subscriber", metavar="ACCOUNT", help="follows OWNERs, with durable queues if it likes")
    what.add_argument("--check", metavar="FILE", type=Path, help="exit 1 where FILE is not the current template")
    parser.add_argument("owners", metavar="OWNER", nargs="*")
    given = parser.parse_args(arguments)
    if given.owners and not (given.submitter or given.subscriber):
        parser.error("OWNERs go with --submitter or --subscriber")
    if given.worker:
        made = access(given.vhost, {given.worker: permissions.worker(given.worker)})
    elif given.submitter:
        made = access(given.vhost, {given.submitter: permissions.submitter(tuple(given.owners))})
    elif given.operator:
        made = access(given.vhost, {given.operator: permissions.operator()})
    elif given.subscriber:
        made = access(given.vhost, {given.subscriber: permissions.subscriber(given.subscriber, tuple(given.owners))})
    else:
        made = template(given.vhost)
    text = json.dumps(made, indent=2) + "\n"
    if given.check is None:
        sys.stdout.write(text)
    elif not given.check.is_file() or given.check.read_text() != text:
        sys.stderr.write(f"{given.check} is not what the code says: run `{parser.prog} > {given.check}`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
