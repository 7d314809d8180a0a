"""Files and the clock through the real agent."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leveret_guestapi import GuestClient, GuestError, local_agent
from leveret_guestapi.codec import MAGIC


@pytest.fixture
async def guest() -> AsyncIterator[GuestClient]:
    async with local_agent() as sock, GuestClient.connect(sock, hello_timeout=20) as client:
        yield client


async def read(guest: GuestClient, path: Path, limit: int = 10**9) -> bytes:
    return b"".join([piece async for piece in guest.read_file(str(path), limit)])


async def test_a_file_there_and_back(guest: GuestClient, tmp_path: Path) -> None:
    data = os.urandom(5_000_000) + MAGIC * 1000
    target = tmp_path / "new" / "folders" / "file"
    await guest.write_file(str(target), data, mode=0o751)
    assert target.read_bytes() == data
    assert stat.S_IMODE(target.stat().st_mode) == 0o751
    assert await read(guest, target) == data
    assert os.listdir(target.parent) == ["file"]


async def test_an_empty_file(guest: GuestClient, tmp_path: Path) -> None:
    await guest.write_file(str(tmp_path / "empty"), b"")
    assert await read(guest, tmp_path / "empty", 0) == b""


async def test_a_file_written_piece_by_piece(guest: GuestClient, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 10_000

    await guest.write_file(str(tmp_path / "file"), pieces())
    assert (tmp_path / "file").read_bytes() == b"".join([piece async for piece in pieces()])


async def test_a_writer_that_breaks_off_leaves_the_old_file(guest: GuestClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"new" * 100_000
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await guest.write_file(str(tmp_path / "file"), pieces())
    await guest.stat("/")  # the agent has dealt with the cancel before it answers this
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
async def test_the_owner_of_a_file_and_of_the_folders_made_for_it(guest: GuestClient, tmp_path: Path) -> None:
    account = pwd.getpwnam("nobody")
    await guest.write_file(str(tmp_path / "a" / "b"), b"x", user="nobody")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        status = await guest.stat(str(path))
        assert (status.uid, status.gid) == (account.pw_uid, account.pw_gid)
    with pytest.raises(GuestError, match="nosuchuser"):
        await guest.write_file(str(tmp_path / "c"), b"x", user="nosuchuser")


async def test_where_nothing_can_be_written(guest: GuestClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GuestError) as raised:
        await guest.write_file(str(tmp_path / "file" / "below"), bytes(3_000_000))
    assert raised.value.errno in ("ENOTDIR", "EEXIST")
    with pytest.raises(GuestError, match="ENOENT"):
        await guest.write_file(str(tmp_path / "no" / "file"), b"x", parents=False)
    with pytest.raises(GuestError, match="EISDIR"):
        await guest.write_file(str(tmp_path), b"x")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
async def test_a_disk_that_is_full(guest: GuestClient, tmp_path: Path) -> None:
    mounted = await guest.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)])
    if not mounted.status.success:
        pytest.skip("no leave to mount here")
    try:
        with pytest.raises(GuestError, match="ENOSPC"):
            await guest.write_file(str(tmp_path / "file"), bytes(3_000_000))
        assert os.listdir(tmp_path) == []
    finally:
        await guest.run(["umount", str(tmp_path)])


async def test_what_cannot_be_read(guest: GuestClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(bytes(1001))
    for path, errno in ((tmp_path / "none", "ENOENT"), (tmp_path, "EINVAL"), (tmp_path / "fifo", "EINVAL")):
        with pytest.raises(GuestError) as raised:
            await read(guest, path)
        assert raised.value.errno == errno
    with pytest.raises(GuestError, match="1001 bytes, more than the limit of 1000"):
        await read(guest, tmp_path / "big", 1000)


async def test_a_reader_that_stops_early(guest: GuestClient, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    pieces = guest.read_file(str(tmp_path / "big"), 10**9)
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]
    assert (await guest.stat(str(tmp_path / "big"))).size == 3_000_000
    assert not guest._conversation.calls


async def test_stat(guest: GuestClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    kinds = [(await guest.stat(str(tmp_path / name))).kind for name in ("file", "link", "fifo", ".")]
    assert kinds == ["file", "link", "other", "directory"]
    status = await guest.stat(str(tmp_path / "file"))
    assert (status.size, status.uid) == (4, os.getuid())
    assert status.mtime == pytest.approx((tmp_path / "file").stat().st_mtime)
    with pytest.raises(GuestError, match="ENOENT"):
        await guest.stat(str(tmp_path / "none"))


async def test_a_local_agent_leaves_the_clock_and_the_machine_alone(guest: GuestClient) -> None:
    assert await guest.sync_clock() is False
    name, hosts = os.uname().nodename, Path("/etc/hosts").read_bytes()
    assert await guest.set_identity(host_name="changed", machine_id="1" * 32) is False
    assert (os.uname().nodename, Path("/etc/hosts").read_bytes()) == (name, hosts)
    await guest.shut_down()
