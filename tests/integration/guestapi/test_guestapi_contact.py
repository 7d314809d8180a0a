"""Contact with the guest: made, kept, lost, resumed; and what is left when it ends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from leveret_guestapi import (
    AgentGone,
    GuestClient,
    GuestError,
    GuestGone,
    GuestTimeout,
    ProtocolViolation,
    agent_source,
    local_agent,
)
from leveret_guestapi.codec import AGENT, CHANNEL_WINDOW, DATA, FAULT, HEADER, PONG, REQUEST, RESULT, STARTED, Frame
from leveret_guestapi.link import Link


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# Three processes that would outlive a careless parent: a child, a daemon in a session of its own, its child.
FAMILY = "sleep 60 & (setsid sh -c 'sleep 60 >/dev/null & echo $! $$; exec >/dev/null; wait' &) | cat; echo $$; wait"


async def read_pids(output: AsyncIterator[tuple[int, bytes]], count: int) -> list[int]:
    seen = b""
    async for _, data in output:
        seen += data
        if len(seen.split()) >= count:
            break
    return [int(word) for word in seen.split()]


@pytest.mark.parametrize("victim", ["agent", "guard"])
async def test_a_killed_agent_is_noticed_and_leaves_nothing_running(victim: str) -> None:
    async with local_agent() as sock, GuestClient.connect(sock, hello_timeout=20) as guest:
        pid = guest.hello.pid if victim == "agent" else parent_of(guest.hello.pid)
        async with guest.exec(FAMILY) as process:
            pids = await read_pids(process.output(), 3)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(GuestGone):
                await asyncio.wait_for(process.wait(), 20)
        with pytest.raises(GuestGone):
            await guest.stat("/")
        assert isinstance(guest.failure, GuestGone)
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_the_end_of_the_session_leaves_nothing_running() -> None:
    async with local_agent() as sock:
        async with GuestClient.connect(sock, hello_timeout=20) as guest:
            done = await guest.run(FAMILY.removesuffix("; wait"))
            pids = [int(word) for word in done.stdout.split()]
            assert any(is_alive(pid) for pid in pids)
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_a_killed_host_leaves_nothing_running() -> None:
    """A host in a process of its own runs a command and is killed: the closed socket ends the agent and its family."""
    code = f"""
import asyncio
from leveret_guestapi import GuestClient, local_agent
async def main():
    async with local_agent() as sock, GuestClient.connect(sock) as guest:
        async with guest.exec({FAMILY!r}) as process:
            print(guest.hello.pid, flush=True)
            async for _, data in process.output():
                print(data.decode(), flush=True)
asyncio.run(main())
"""
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    seen = b""
    async with asyncio.timeout(30):
        while len(seen.split()) < 4:
            line = await host.stdout.readline()
            assert line
            seen += line
    pids = [int(word) for word in seen.split()]
    host.kill()
    await host.wait()
    # The agent's guard inherited our pipe as its standard output: its end is the end of the pipe.
    async with asyncio.timeout(30):
        assert (await host.stdout.read()).strip() == b""
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_errors_of_the_body_come_out_as_they_are() -> None:
    async with local_agent() as sock:
        with pytest.raises(ZeroDivisionError):
            async with GuestClient.connect(sock, hello_timeout=20):
                raise ZeroDivisionError


async def test_nobody_answers() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(GuestTimeout, match=r"no agent answered within 0.2 s"):
            async with GuestClient.connect(ours, hello_timeout=0.2):
                pass


async def test_a_socket_that_never_appears(tmp_path: Path) -> None:
    with pytest.raises(GuestTimeout, match="no agent answered"):
        async with GuestClient.connect(tmp_path / "none", hello_timeout=0.2):
            pass


async def test_a_guest_that_is_silent_is_given_up() -> None:
    async with local_agent() as sock:
        async with GuestClient.connect(sock, hello_timeout=20, beat_interval=0.05, beat_limit=0.3) as guest:
            await guest.stat("/")
            os.kill(guest.hello.pid, signal.SIGSTOP)
            try:
                with pytest.raises(GuestGone, match="not answered the beat"):
                    await asyncio.wait_for(guest.stat("/"), 20)
            finally:
                os.kill(guest.hello.pid, signal.SIGCONT)


async def test_an_idle_guest_that_answers_the_beat_is_kept() -> None:
    async with local_agent() as sock:
        async with GuestClient.connect(sock, hello_timeout=20, beat_interval=0.02, beat_limit=0.2) as guest:
            done = await guest.run("sleep 0.6; echo still here")
            assert done.stdout == b"still here\n"


# --- Over a path, as QEMU offers a virtio-serial port: the host may come and go, the guest's end stays. ---


class Port:
    """A stand-in for the emulated port: joins whoever connects to `path` with the agent's end, and can cut them off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guest_reader: asyncio.StreamReader
        self.guest_writer: asyncio.StreamWriter
        self.connections = 0
        self.cuts: list[int] = []  # bytes to let through from the guest before each cut
        self._host: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        """Close the host's connection, if there is one; what it has sent and nobody read is lost, in part or whole."""
        if self._host is not None:
            self._host.transport.abort()
            self._host = None

    async def put_in(self, sock: socket.socket) -> None:
        """Let another agent have the guest's end."""
        old = self.guest_writer
        self.guest_reader, self.guest_writer = await asyncio.open_unix_connection(sock=sock)
        old.close()

    async def serve_host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._host = writer
        try:
            while (data := await reader.read(65536)) and self._host is writer:
                self.guest_writer.write(data)
                await self.guest_writer.drain()
        except ConnectionError:
            pass
        finally:
            if self._host is writer:
                self._host = None
            writer.close()

    async def serve_guest(self) -> None:
        while True:
            reader = self.guest_reader
            data = await reader.read(65536)
            if not data:
                if reader is self.guest_reader:
                    return
                continue
            if self._host is None:
                continue  # written while nobody listens: lost
            if self.cuts:
                self.cuts[0] -= len(data)
            if self.cuts and self.cuts[0] < 0:
                self.cuts.pop(0)
                self._host.write(data[: len(data) // 2])
                self._host.close()
                self._host = None
            else:
                self._host.write(data)


@asynccontextmanager
async def ported_agent(path: Path, run: Callable[[socket.socket], object] | None = None) -> AsyncIterator[Port]:
    port = Port(path)
    async with local_agent() as sock, asyncio.TaskGroup() as tasks:
        port.guest_reader, port.guest_writer = await asyncio.open_unix_connection(sock=sock)
        server = await asyncio.start_unix_server(port.serve_host, path)
        pump = tasks.create_task(port.serve_guest())
        try:
            yield port
        finally:
            server.close()
            pump.cancel()
            port.guest_writer.close()


async def test_a_cut_connection_is_resumed_without_loss(tmp_path: Path) -> None:
    async with ported_agent(tmp_path / "port") as port:
        async with GuestClient.connect(port.path, hello_timeout=20, reconnect_limit=20) as guest:
            received = bytearray()
            port.cuts = [300_000, 1, 500_000, 10_000, 700_000]
            async with guest.exec("seq 1 400000", time_limit=60) as process:
                async for _, data in process.output():
                    received += data
            assert process.status is not None
            assert process.status.success
            assert bytes(received) == b"".join(b"%d\n" % number for number in range(1, 400_001))
            assert port.connections == 6


class Cutter:
    """Cuts the connection at random moments: after some bytes in either direction, so that frames are torn."""

    def __init__(self, port: Port, seed: int) -> None:
        self.port = port
        self.chance = random.Random(seed)
        self.made = 0

    async def run(self) -> None:
        while True:
            before = self.port.connections
            await asyncio.sleep(self.chance.expovariate(100))
            self.port.cut()
            self.made += 1
            while self.port.connections == before:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(3))
async def test_cuts_at_random_moments_of_a_long_exchange_lose_nothing(tmp_path: Path, seed: int) -> None:
    data = random.Random(seed).randbytes(8_000_000)
    (tmp_path / "read").write_bytes(data)
    received = {"command": bytearray(), "file": bytearray()}

    async with ported_agent(tmp_path / "port") as port:
        async with GuestClient.connect(port.path, hello_timeout=20, reconnect_limit=20) as guest:

            async def command() -> None:
                async with guest.exec(["cat"], stdin=True) as process, asyncio.TaskGroup() as feeding:
                    feeding.create_task(process.feed(data))
                    async for _, piece in process.output():
                        received["command"] += piece

            async def file() -> None:
                async for piece in guest.read_file(str(tmp_path / "read"), len(data)):
                    received["file"] += piece

            cutter = Cutter(port, seed)
            async with asyncio.TaskGroup() as tasks:
                cutting = tasks.create_task(cutter.run())
                async with asyncio.timeout(60), asyncio.TaskGroup() as work:
                    work.create_task(command())
                    work.create_task(file())
                    work.create_task(guest.write_file(str(tmp_path / "written"), data))
                cutting.cancel()
    assert received == {"command": data, "file": data}
    assert (tmp_path / "written").read_bytes() == data
    assert cutter.made > 3


async def test_an_agent_started_anew_is_noticed_when_the_host_comes_back(tmp_path: Path) -> None:
    async with ported_agent(tmp_path / "port") as port:
        async with GuestClient.connect(port.path, hello_timeout=20, reconnect_limit=20) as guest:
            async with local_agent() as fresh:
                await port.put_in(fresh)
                port.cut()
                with pytest.raises(AgentGone, match="started anew"):
                    await asyncio.wait_for(guest.run("sleep 60"), 20)


async def test_an_agent_started_anew_is_noticed_by_the_next_beat(tmp_path: Path) -> None:
    """The host's end of a port stays open when the guest's is closed and opened again."""
    async with ported_agent(tmp_path / "port") as port:
        client = GuestClient.connect(port.path, hello_timeout=20, beat_interval=0.2, reconnect_limit=20)
        async with client as guest, local_agent() as fresh:
            await port.put_in(fresh)
            with pytest.raises(AgentGone, match="no preamble"):
                await asyncio.wait_for(guest.run("sleep 60"), 20)
            assert port.connections == 1


async def test_without_leave_to_reconnect_a_cut_is_the_end(tmp_path: Path) -> None:
    async with ported_agent(tmp_path / "port") as port:
        async with GuestClient.connect(port.path, hello_timeout=20) as guest:
            port.cuts = [100_000]
            with pytest.raises(GuestGone, match="closed"):
                await guest.run("seq 1 400000", output_limit=10**9)


async def test_a_second_session_replaces_the_first_and_its_commands(tmp_path: Path) -> None:
    async with ported_agent(tmp_path / "port") as port:
        async with GuestClient.connect(port.path, hello_timeout=20) as first:
            async with first.exec("echo $$; exec sleep 60") as process:
                _, pid = await anext(process.output())
                async with GuestClient.connect(port.path, hello_timeout=20) as second:
                    assert second.hello.pid == first.hello.pid
                    assert (await second.run(["echo", "fresh"])).stdout == b"fresh\n"
                    assert not is_alive(int(pid))
                first._conversation.fail(GuestGone("replaced"))


# --- A hostile agent: the codec on the guest's side, without its manners. ---


HELLO = b'{"agent":"x","pid":1,"python":"3","system":"L","release":"6","machine":"m","boot_id":"b","uptime":1}'


@asynccontextmanager
async def hostile(answer: Callable[[Link, Frame], bytes]) -> AsyncIterator[socket.socket]:
    """A socket to an agent that says hello, and to every later request replies with the bytes of `answer`."""
    ours, theirs = socket.socketpair()

    async def serve() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        link = Link(AGENT)
        try:
            while data := await reader.read(65536):
                for event in link.receive_data(data):
                    if isinstance(event, Frame) and event.kind == REQUEST:
                        if event.channel == 1:
                            link.send(RESULT, 1, HELLO)
                        else:
                            link._out.append(answer(link, event))
                writer.write(link.data_to_send())
        except (ConnectionError, ProtocolViolation):
            pass  # the host has hung up, or has acknowledged what this agent's link does not know of
        finally:
            writer.close()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve())
        with ours:
            yield ours
        task.cancel()


def frame(kind: int, channel: int, payload: bytes, sequence: int, stream: int = 1) -> bytes:
    return HEADER.pack(len(payload), channel, sequence, 0, stream, kind) + payload


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda link, event: HEADER.pack(2**31, 2, 2, 0, 1, DATA), ProtocolViolation),
        (lambda link, event: b"\xff" * 100_000, ProtocolViolation),
        (lambda link, event: frame(RESULT, event.channel, b"[" * 30_000, 2), ProtocolViolation),
        (lambda link, event: frame(RESULT, event.channel, b'{"size":"1"}', 2), ProtocolViolation),
        (lambda link, event: frame(RESULT, 77, b"{}", 2), ProtocolViolation),
        (lambda link, event: frame(FAULT, 0, b"\x1b[2Jno", 0), GuestGone),
    ],
)
async def test_a_lying_guest_costs_its_own_session(
    answer: Callable[[Link, Frame], bytes], error: type[Exception]
) -> None:
    async with hostile(answer) as sock, GuestClient.connect(sock, hello_timeout=20) as guest:
        with pytest.raises(error):
            await asyncio.wait_for(guest.stat("/"), 20)


async def test_a_guest_that_sends_more_of_a_file_than_asked_for() -> None:
    def answer(link: Link, event: Frame) -> bytes:
        return frame(DATA, event.channel, b"x" * 1001, 2)

    async with hostile(answer) as sock, GuestClient.connect(sock, hello_timeout=20, operation_limit=5) as guest:
        with pytest.raises(ProtocolViolation, match="more than the 1000 bytes"):
            async for _ in guest.read_file("/x", 1000):
                pass


async def test_a_guest_that_floods_past_its_credit() -> None:
    def answer(link: Link, event: Frame) -> bytes:
        return b"".join(frame(DATA, event.channel, b"x" * 100, number) for number in range(2, 20_000))

    async with hostile(answer) as sock, GuestClient.connect(sock, hello_timeout=20, operation_limit=5) as guest:
        with pytest.raises(ProtocolViolation, match="beyond its credit"):
            await guest.stat("/")


async def test_a_guest_that_writes_and_never_reads_is_given_up() -> None:
    """What it is told would wait for it on the host without end. It reckons credit and numbers, but no beat's token."""
    ours, theirs = socket.socketpair()

    async def serve() -> None:
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        link = Link(AGENT)
        try:
            while link.channels.last < 2:
                for event in link.receive_data(await reader.read(65536)):
                    if isinstance(event, Frame) and event.kind == REQUEST:
                        done = event.channel == 1
                        link.send(RESULT if done else STARTED, event.channel, HELLO if done else b'{"pid":1}')
                writer.write(link.data_to_send())
            number = 3
            while True:
                writer.write(frame(DATA, 2, b"x" * 1000, number))
                if number > 200 and number % 10 == 0:  # the first beat comes after a second
                    writer.write(frame(PONG, 0, bytes(8), 0, stream=0))
                await writer.drain()
                number += 1
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve())
        with ours:
            async with GuestClient.connect(ours, hello_timeout=20, beat_interval=0.01, beat_limit=0.5) as guest:
                with pytest.raises(GuestGone, match="not answered the beat"):
                    async with guest.exec(["true"]) as process:
                        await asyncio.wait_for(process.wait(), 20)


async def test_a_guest_that_never_answers_a_request() -> None:
    async with hostile(lambda link, event: b"") as sock:
        async with GuestClient.connect(sock, hello_timeout=20, operation_limit=0.2) as guest:
            with pytest.raises(GuestTimeout, match=r"did not stat / within 0.2 s"):
                await guest.stat("/")
            with pytest.raises(GuestTimeout, match="start the command"):
                await guest.run(["true"])
            with pytest.raises(GuestTimeout, match="take any data"):
                await guest.write_file("/x", bytes(2 * CHANNEL_WINDOW))


async def test_an_agent_refuses_what_it_does_not_know() -> None:
    async with local_agent() as sock, GuestClient.connect(sock, hello_timeout=20) as guest:
        with pytest.raises(GuestError, match="ENOSYS"):
            await guest._ask(b'{"op": "dance"}', "dance")
        with pytest.raises(GuestError, match="EINVAL"):
            await guest._ask(b'{"op": "exec"}', "exec without words")
        with pytest.raises(GuestError, match="EINVAL"):
            await guest._ask(b'{"no": "op"}', "nothing")
        assert (await guest.stat("/")).kind == "directory"


def test_the_agent_is_one_file() -> None:
    compile(agent_source(), "agent.py", "exec")
