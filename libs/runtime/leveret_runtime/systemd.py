"""What a service tells systemd over a datagram socket (`sd_notify(3)`): readiness, a line of status, that it lives.

A beat is sent by the event loop, so it comes only while that gets round: one that is blocked or frozen sends none, and
the manager ends the process (`WatchdogSec=`), with the stack of every thread in the journal.
"""

import asyncio
import os
import socket

from leveret_runtime.health import Health

#: Seconds to wait for room. The kernel keeps some ten datagrams for a manager that reads none, and then lets nobody on.
LIMIT = 0.1
#: Seconds between beats where the watchdog wants none sooner: how old a line of status may be.
BEAT = 5.0
#: Beats within the watchdog's time: so many may be lost, or late, before the last one.
BEATS = 4
#: Seconds by which a beat lengthens a start that waits for the broker, and a stop that waits for builds.
EXTENSION = 60.0
#: Characters of a line of status; what a server has said to us may be in it.
LONGEST_STATUS = 500


def notify(*fields: str, limit: float = LIMIT) -> None:
    """Send `fields` such as `READY=1` to the socket that NOTIFY_SOCKET names; nothing where it names none.

    `limit`: seconds to wait for room; without room in time nothing is sent.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(limit)
        try:
            channel.sendto("\n".join(fields).encode(), address)
        except OSError:
            pass  # the manager went away, or reads nothing any more; that must not stop a service


def watchdog() -> float | None:
    """Give the seconds within which the manager wants each beat; None: it doesn't watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    given = os.environ.get("WATCHDOG_USEC", "")
    return int(given) / 1e6 if given.isdecimal() and int(given) > 0 else None


def beat(health: Health, told: str | None) -> tuple[tuple[str, ...], str]:
    """Give the fields of a beat and its line of status. Pure.

    `told`: the line that the manager has; it is sent again only where it has changed.
    """
    fields = ["WATCHDOG=1"]
    if health.moving:
        fields.append(f"EXTEND_TIMEOUT_USEC={round(EXTENSION * 1e6)}")
    text = health.told[:LONGEST_STATUS]
    if text != told:
        fields.append(f"STATUS={text}")
    return tuple(fields), text


async def beat_for_ever(health: Health) -> None:
    """Send beats until cancelled; none where nobody watches, who might not read them either."""
    seconds = watchdog()
    if seconds is None:
        return
    interval = min(BEAT, seconds / BEATS)
    told: str | None = None
    while True:
        fields, told = beat(health, told)
        notify(*fields, limit=0.0)  # the loop never waits for a manager: the next beat says it, too
        await asyncio.sleep(interval)
