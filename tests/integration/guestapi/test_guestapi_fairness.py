"""Two guests on one event loop, that of the worker: what one of them floods must not hold up the other."""

import asyncio
import socket
import subprocess
import sys
import time

import uvloop

from leveret_guestapi import GuestClient, local_agent
from leveret_guestapi.codec import AGENT, REQUEST, RESULT, STARTED, STDOUT, Frame
from leveret_guestapi.link import Link

HELLO = b'{"agent":"x","pid":1,"python":"3","system":"L","release":"6","machine":"m","boot_id":"b","uptime":1}'
#: Seconds that a round trip to the honest guest may take at the most. Its beat has 30.
LONGEST = 2.0


def flood(sock: socket.socket) -> None:
    """A guest whose only command writes as many frames of one byte as credit allows, faster than any emulated one."""
    link = Link(AGENT)
    running = 0
    sock.setblocking(False)
    while True:
        try:
            data = sock.recv(65536)
            if not data:
                return
            for event in link.receive_data(data):
                if isinstance(event, Frame) and event.kind == REQUEST:
                    running = 0 if event.channel == 1 else event.channel
                    link.send(STARTED if running else RESULT, event.channel, b'{"pid":1}' if running else HELLO)
        except BlockingIOError:
            pass
        while running and link.send_data(running, STDOUT, b"x"):
            pass
        sock.setblocking(True)
        sock.sendall(link.data_to_send())
        sock.setblocking(False)


def test_a_guest_that_floods_does_not_hold_up_another() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        hostile = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    async def flooded(started: asyncio.Event) -> None:
        async with GuestClient.connect(ours, hello_timeout=20) as guest, guest.exec(["true"]) as process:
            async for _ in process.output():
                started.set()

    async def run() -> list[float]:
        started = asyncio.Event()
        trips: list[float] = []
        async with local_agent() as sock, asyncio.TaskGroup() as tasks:
            flooding = tasks.create_task(flooded(started))
            async with GuestClient.connect(sock, hello_timeout=20) as guest:
                await asyncio.wait_for(started.wait(), 20)
                for _ in range(50):
                    began = time.perf_counter()
                    await guest.stat("/")
                    trips.append(time.perf_counter() - began)
            flooding.cancel()
        return trips

    try:
        trips = uvloop.run(run())
    finally:
        hostile.kill()
        hostile.wait()
        ours.close()
    assert max(trips) < LONGEST, f"{max(trips):.2f} s"


if __name__ == "__main__":
    flood(socket.socket(fileno=int(sys.argv[1])))
