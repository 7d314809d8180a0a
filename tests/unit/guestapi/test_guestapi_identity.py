"""The names a guest is given: what counts as one, and the files they are written to."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_guestapi import agent_identity, requests

MACHINE_ID = "0123456789abcdef" * 2
GOOD_NAMES = ["build", "job-17.example.org", "7", "A" * 63, "a-b"]
BAD_NAMES = ["", "-a", "a-", "a..b", "a_b", "é", "a b", "a\n", "A" * 64, ".a", "a.", "x/../y"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("old\n")
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_host_name_is_sent_and_taken(name: str, root: Path) -> None:
    request = json.loads(requests.set_identity_request(name, MACHINE_ID))
    assert request.pop("op") == "set-identity"
    agent_identity.set_identity(request, str(root))
    assert (root / "proc/sys/kernel/hostname").read_text() == name
    assert (root / "etc/hostname").read_text() == f"{name}\n"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_host_name_is_refused_on_both_sides(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match="host name"):
        requests.set_identity_request(name, MACHINE_ID)
    with pytest.raises(ValueError, match="host name"):
        agent_identity.set_identity({"host_name": name, "machine_id": MACHINE_ID}, str(root))
    assert list((root / "etc").iterdir()) == []


@pytest.mark.parametrize("machine_id", ["", "0" * 32, "g" * 32, "a" * 31, "A" * 32, "a" * 32 + "\n"])
def test_what_is_no_machine_id_is_refused_on_both_sides(machine_id: str, root: Path) -> None:
    with pytest.raises(ValueError, match="machine id"):
        requests.set_identity_request("name", machine_id)
    with pytest.raises(ValueError, match="hexadecimal"):
        agent_identity.set_identity({"host_name": "name", "machine_id": machine_id}, str(root))


def test_the_machine_id_is_replaced_whole(root: Path) -> None:
    (root / "etc/machine-id").write_text("f" * 32 + "\n")
    reader = (root / "etc/machine-id").open()
    agent_identity.set_identity({"host_name": "n", "machine_id": MACHINE_ID}, str(root))
    assert reader.read() == "f" * 32 + "\n"  # another file, not this one rewritten
    reader.close()
    assert (root / "etc/machine-id").read_text() == MACHINE_ID + "\n"
    assert stat.S_IMODE((root / "etc/machine-id").stat().st_mode) == 0o444
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["hostname", "hosts", "machine-id"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "127.0.0.1\tlocalhost\n127.0.1.1\tnew\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\tnew\n"),
        ("127.0.1.1 old.org old # me\n10.0.0.1 old", "127.0.1.1\told.org new # me\n10.0.0.1 old\n"),
        ("# 127.0.1.1 old\n127.0.1.1 new\n", "# 127.0.1.1 old\n127.0.1.1 new\n"),
        ("::1 ip6-localhost old\n", "::1\tip6-localhost new\n"),
    ],
)
def test_the_hosts_file_names_the_machine(before: str, after: str) -> None:
    assert agent_identity.renamed_hosts(before, "old", "new") == after


def test_localhost_keeps_its_name() -> None:
    hosts = agent_identity.renamed_hosts("127.0.0.1 localhost\n", "localhost", "new")
    assert hosts == "127.0.0.1 localhost\n127.0.1.1\tnew\n"


@given(st.text(st.sampled_from("127.0.1 \tolnew#:\n"), max_size=80))
def test_renaming_the_machine_twice_in_the_hosts_file_is_renaming_it_once(hosts: str) -> None:
    once = agent_identity.renamed_hosts(hosts, "old", "new")
    assert agent_identity.renamed_hosts(once, "new", "new").split() == once.split()


def test_too_few_or_too_many_random_bytes_are_not_sent() -> None:
    for count in (0, 31, 513):
        with pytest.raises(ValueError, match="random bytes"):
            requests.sync_clock_request(1.0, bytes(count))
