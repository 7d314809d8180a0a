"""Commands through the real agent, run as a child process over a socket pair."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_guestapi import STDERR, STDOUT, ExitStatus, GuestClient, GuestError, GuestTimeout, local_agent
from leveret_guestapi.codec import CHANNEL_WINDOW, MAX_CHANNELS
from tests.support.processes import until_gone


@pytest.fixture
async def guest() -> AsyncIterator[GuestClient]:
    async with local_agent() as sock, GuestClient.connect(sock, hello_timeout=20) as client:
        yield client


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_hello_tells_who_answers(guest: GuestClient) -> None:
    assert guest.hello.machine == os.uname().machine
    assert is_alive(guest.hello.pid)


async def test_output_status_and_streams(guest: GuestClient) -> None:
    done = await guest.run("echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", ExitStatus(7, None, False))


async def test_words_are_not_touched_by_a_shell(guest: GuestClient) -> None:
    done = await guest.run(["printf", "%s|", "a b", "$HOME", "*", "é", ""])
    assert done.stdout == "a b|$HOME|*|é||".encode()


async def test_environment_and_folder(guest: GuestClient, tmp_path: Path) -> None:
    done = await guest.run('pwd; echo "$COLOUR $USER"', env={"COLOUR": "blue"}, cwd=str(tmp_path))
    assert done.stdout.decode() == f"{tmp_path}\nblue {pwd.getpwuid(os.getuid()).pw_name}\n"
    assert done.stderr == b""


async def test_nothing_of_the_agents_own_reaches_a_command(guest: GuestClient) -> None:
    done = await guest.run("ls -l /proc/self/fd | wc -l; trap '' PIPE; cat /proc/self/status | grep SigIgn")
    files, ignored = done.stdout.decode().splitlines()
    assert int(files) == 5  # the heading, 0, 1, 2 and the folder ls reads
    # 32 and above are the C library's own or inherited from whoever runs the tests
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 1 << (signal.SIGPIPE - 1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_as_another_user(guest: GuestClient) -> None:
    done = await guest.run('id -un; echo "$HOME $LOGNAME"; test -w /etc/passwd || echo harmless', user="nobody")
    assert done.stdout == b"nobody\n" + pwd.getpwnam("nobody").pw_dir.encode() + b" nobody\nharmless\n"


async def test_an_unknown_user_is_an_error(guest: GuestClient) -> None:
    with pytest.raises(GuestError, match="nosuchuser"):
        await guest.run(["true"], user="nosuchuser")


@pytest.mark.parametrize(
    ("words", "cwd", "errno"),
    [
        (["/no/such/command"], None, "ENOENT"),
        (["/etc/passwd"], None, "EACCES"),
        (["true"], "/no/such/folder", "ENOENT"),
    ],
)
async def test_what_cannot_start_says_why(guest: GuestClient, words: list[str], cwd: str | None, errno: str) -> None:
    with pytest.raises(GuestError) as raised:
        await guest.run(words, cwd=cwd)
    assert raised.value.errno == errno
    assert (cwd or words[0]) in raised.value.message


async def test_input_reaches_the_command_and_ends(guest: GuestClient) -> None:
    data = os.urandom(3_000_000)
    done = await guest.run(["cat"], input=data, output_limit=len(data))
    assert done.stdout == data


async def test_a_command_that_does_not_read_its_input_ends_all_the_same(guest: GuestClient) -> None:
    done = await guest.run("exec <&-; echo done", input=bytes(2_000_000))
    assert (done.stdout, done.status.code) == (b"done\n", 0)


async def test_a_terminal(guest: GuestClient) -> None:
    script = "tty; stty size; echo $TERM >&2; exit 4"
    async with guest.exec(script, pty=(33, 99), stdin=True, time_limit=20) as process:
        output = [chunk async for chunk in process.output()]
    assert {stream for stream, _ in output} == {STDOUT}
    lines = b"".join(data for _, data in output).decode().split("\r\n")
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:] == ["33 99", "xterm", ""]
    assert process.status == ExitStatus(4, None, False)


async def test_a_terminal_can_be_resized_and_typed_into(guest: GuestClient) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; read line; while :; do read line; done"
    async with guest.exec(script, pty=(10, 20), stdin=True, time_limit=20) as process:
        seen = b""
        async for _, data in process.output():
            seen += data
            if seen == b"ready\r\n":
                await process.write(b"typed\n")
            elif seen == b"ready\r\ntyped\r\n":
                process.resize(50, 60)
    assert seen == b"ready\r\ntyped\r\n50 60\r\n"


async def test_the_end_of_a_terminals_input(guest: GuestClient) -> None:
    async with guest.exec("stty -echo; echo ready; cat", pty=(10, 20), stdin=True, time_limit=20) as process:
        seen = b""
        async for _, data in process.output():
            seen += data
            if seen == b"ready\r\n":
                await process.feed(b"line\n")
    assert seen == b"ready\r\nline\r\n"


async def test_a_terminal_to_write_to_changes_no_byte_and_asks_nobody(guest: GuestClient) -> None:
    """Without input a program that would ask a person hears at once that there is none."""
    asking = "read line || echo end; (: </dev/tty) 2>/dev/null || echo alone"
    script = "test -t 1 && stty size <&1; printf 'a\\nb\\r\\n\\tc\\0\\4'; " + asking
    async with guest.exec(script, pty=(33, 99), time_limit=20) as process:
        output = [chunk async for chunk in process.output()]
    assert {stream for stream, _ in output} == {STDOUT}
    assert b"".join(data for _, data in output) == b"33 99\na\nb\r\n\tc\0\4end\nalone\n"


async def test_what_a_command_with_a_terminal_leaves_behind_lives_on(guest: GuestClient) -> None:
    """No hang-up reaches it: one task may start a service for the next."""
    async with guest.exec("sleep 60 & echo $!", pty=(24, 80), time_limit=20) as process:
        pid = int(b"".join([data async for _, data in process.output()]))
    await guest.stat("/")
    assert is_alive(pid)


async def test_all_that_a_quick_command_wrote_to_a_terminal_comes_though_its_child_keeps_the_terminal(
    guest: GuestClient,
) -> None:
    script = "seq 1 3000; sleep 60 & exit 0"
    async with asyncio.timeout(20), guest.exec(script, pty=(24, 80)) as process:
        output = b"".join([data async for _, data in process.output()])
    assert output == b"".join(b"%d\n" % number for number in range(1, 3001))


async def test_a_signal(guest: GuestClient) -> None:
    async with guest.exec("trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.05; done") as process:
        output = process.output()
        assert await anext(output) == (STDOUT, b"ready\n")
        process.signal("USR1")
        assert [data async for stream, data in output if stream == STDOUT] == [b"caught\n"]
        assert (await process.wait()).code == 3
        process.signal("TERM")  # too late, and harmless


async def test_time_limit_asks_first(guest: GuestClient) -> None:
    async with guest.exec("trap 'echo bye; exit 5' TERM; sleep 60 & wait", time_limit=0.3, kill_after=20) as process:
        output = b"".join([data async for _, data in process.output()])
    assert output == b"bye\n"
    assert process.status == ExitStatus(5, None, True)


async def test_time_limit_then_kills_the_whole_session(guest: GuestClient) -> None:
    # Job control gives the background job a process group of its own, out of the first signal's reach.
    script = "trap '' TERM; set -m; sleep 60 & echo $!; sleep 60"
    async with guest.exec(["bash", "-c", script], time_limit=0.3, kill_after=0.2) as process:
        output = process.output()
        _, first = await anext(output)
        status = await asyncio.wait_for(process.wait(), 20)
    assert status == ExitStatus(None, signal.SIGKILL, True)
    await until_gone([int(first)])


async def test_leaving_the_block_kills_the_command(guest: GuestClient) -> None:
    async with guest.exec("echo $$; sleep 60") as process:
        _, first = await anext(process.output())
    await guest.stat("/")
    await until_gone([int(first)])
    assert guest.failure is None


async def test_cancelling_the_waiter_kills_the_command(guest: GuestClient) -> None:
    pids = []

    async def build() -> None:
        async with guest.exec("echo $$; sleep 60") as process:
            async for _, data in process.output():
                pids.append(int(data))
                started.set()

    started = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(build())
        await started.wait()
        task.cancel()
    assert task.cancelled()
    await until_gone([pids[0]])


async def test_a_daemon_left_behind_does_not_delay_the_end(guest: GuestClient) -> None:
    async with asyncio.timeout(20):
        done = await guest.run("echo before; (sleep 60; echo never) & echo $!; exit 0")
    first, pid = done.stdout.split()
    assert first == b"before"
    assert is_alive(int(pid))


async def test_big_output_arrives_whole(guest: GuestClient) -> None:
    size = 40_000_000
    script = f"exec 3>&1; head -c {size} /dev/urandom | tee /proc/self/fd/3 | sha256sum >&2"
    digest, length, told = hashlib.sha256(), 0, b""
    async with guest.exec(script, time_limit=60) as process:
        async for stream, data in process.output():
            if stream == STDOUT:
                digest.update(data)
                length += len(data)
            else:
                told += data
    assert process.status is not None
    assert process.status.success
    assert length == size
    assert told.decode().split()[0] == digest.hexdigest()


def resident() -> int:
    """Bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_a_slow_consumer_slows_the_command_and_costs_no_memory(guest: GuestClient, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    script = f"i=0; while [ $i -lt 400 ]; do head -c 100000 /dev/zero; echo >> {progress}; i=$((i+1)); done"
    async with guest.exec(script, time_limit=60) as process:
        output = process.output()
        received = len((await anext(output))[1])
        before = peak = resident()
        # While we take nothing the agent still answers: only this one command is slowed.
        for _ in range(300):
            await guest.stat("/")
        written = (await guest.stat(str(progress))).size * 100_000
        # Under way at most: the channel's window, the pipe, and what the reader holds in its hand.
        assert written <= CHANNEL_WINDOW + 256 * 1024 + 64 * 1024
        async for _, data in output:
            received += len(data)
            peak = max(peak, resident())
    assert received == 40_000_000
    assert peak - before < 8 * 1024 * 1024


async def test_too_much_output_for_run_is_an_error(guest: GuestClient) -> None:
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        await guest.run("while :; do echo y; done", output_limit=1000)
    assert (await guest.run(["echo", "fine"])).stdout == b"fine\n"


async def test_more_commands_at_once_than_channels(guest: GuestClient) -> None:
    async def one(number: int) -> bytes:
        return (await guest.run(["echo", str(number)])).stdout

    async with asyncio.TaskGroup() as tasks:
        results = [tasks.create_task(one(number)) for number in range(MAX_CHANNELS + 20)]
    assert [int(task.result()) for task in results] == list(range(MAX_CHANNELS + 20))


async def test_a_long_argument_list_and_one_that_is_too_long(guest: GuestClient) -> None:
    words = ["x" * 1000] * 200
    done = await guest.run(["sh", "-c", "echo $#", "sh", *words])
    assert done.stdout == b"200\n"
    with pytest.raises(ValueError, match="at most"):
        await guest.run(["echo", *words, *words])
    assert (await guest.run(["true"])).status.success


async def test_a_guest_that_does_not_end_a_command_in_time_is_given_up() -> None:
    async with local_agent() as sock:
        async with GuestClient.connect(sock, hello_timeout=20, operation_limit=0.5) as guest:
            async with guest.exec("exec sleep 60", time_limit=0.5, kill_after=0) as process:
                # The agent is stopped: it neither enforces the limit nor answers.
                os.kill(guest.hello.pid, signal.SIGSTOP)
                try:
                    with pytest.raises(GuestTimeout, match="did not"):
                        await process.wait()
                finally:
                    os.kill(guest.hello.pid, signal.SIGCONT)


async def test_standard_error_is_told_apart(guest: GuestClient) -> None:
    async with guest.exec("echo problem >&2") as process:
        assert [chunk async for chunk in process.output()] == [(STDERR, b"problem\n")]
