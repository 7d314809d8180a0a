"""The parts of the embedded stack that need no server: ports, definitions, SQL text, missing programs."""

import base64
import hashlib
from pathlib import Path

import pytest

from leveret_embedded import FolderInUseError, MissingProgramError, postgresql, programs, provisioning, rabbitmq
from leveret_embedded.broker import with_administrator
from leveret_embedded.folder import own_folder
from leveret_embedded.ports import reserved_ports
from leveret_embedded.quorum import quorum_queues
from leveret_runtime.rabbit_password import password_hash


def test_reserved_ports_are_outside_the_ephemeral_range_and_given_once() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with reserved_ports(200) as first, reserved_ports(200) as second:
        assert len({*first, *second}) == 400
        assert not any(low <= port <= high for port in first + second)


def test_a_password_hash_is_salt_and_digest() -> None:
    raw = base64.b64decode(password_hash("häsin"))
    assert raw[4:] == hashlib.sha256(raw[:4] + "häsin".encode()).digest()
    assert password_hash("häsin") != password_hash("häsin")
    with pytest.raises(ValueError, match="not empty"):
        password_hash("")


def test_the_administrator_is_added_once_and_to_every_virtual_host() -> None:
    given = {"vhosts": [{"name": "a"}, {"name": "b"}], "users": [{"name": "admin"}, {"name": "eve"}]}
    document = with_administrator(given, "secret")
    assert [user["name"] for user in document["users"]] == ["eve", "admin"]
    assert {(given["user"], given["vhost"]) for given in document["permissions"]} == {("admin", "a"), ("admin", "b")}
    assert with_administrator(None, "secret")["vhosts"] == [{"name": "/"}]


def test_only_quorum_queues_are_waited_for() -> None:
    quorum, classic = {"x-queue-type": "quorum"}, {"x-queue-type": "classic"}
    queues = [
        {"name": "q", "vhost": "/", "arguments": quorum},
        {"name": "q", "vhost": "v", "arguments": quorum},
        {"name": "c", "vhost": "v", "arguments": classic},
        {"name": "d", "vhost": "v"},
    ]
    assert quorum_queues({"queues": queues}) == {b"%2F_q", b"v_q"}


@pytest.mark.parametrize("name", ["", "Upper", "with space", 'quo"te', "1st", "a" * 64, "semi;colon", "new\n"])
def test_names_that_need_thought_are_no_identifiers(name: str) -> None:
    with pytest.raises(ValueError, match="plain PostgreSQL name"):
        provisioning.identifier(name)


async def test_missing_programs_are_named_in_one_line_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "RABBITMQ_SERVER", tmp_path / "none")
    monkeypatch.setattr(programs, "POSTGRESQL_ROOT", tmp_path / "none")
    with pytest.raises(MissingProgramError, match=r"^missing: rabbitmq-server \(Debian package rabbitmq-server\)$"):
        await rabbitmq(tmp_path / "r").__aenter__()
    with pytest.raises(MissingProgramError, match=r"^missing: postgresql \(Debian package postgresql\)$"):
        await postgresql(tmp_path / "p", fsync=False).__aenter__()


async def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with own_folder(tmp_path / "base"):
        with pytest.raises(FolderInUseError, match="in use"):
            await postgresql(tmp_path / "base", fsync=False).__aenter__()
        with pytest.raises(FolderInUseError, match="in use"):
            await rabbitmq(tmp_path / "base").__aenter__()
    with own_folder(tmp_path / "base"):
        pass
