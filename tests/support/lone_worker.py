"""The environment of the one worker of a test, `w1`, on a virtual host of its own."""

from pathlib import Path

from tests.support.vhosts import Vhost


def lone_worker(vhost: Vhost, spool: Path, **settings: object) -> dict[str, str]:
    """One slot, and builds that are given no time when it is stopped; but as `settings` (`key=value`) say."""
    usual = {"amqp_url": vhost.url("w1"), "name": "w1", "slots": 1, "spool": spool, "drain_limit": 0}
    return {f"LEVERET_WORKER_{key.upper()}": str(value) for key, value in (usual | settings).items()}
