"""Commands before any of them is obeyed: who takes which, in what order, and how workers are ranked beside a job."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_dispatcher.commands import jobs
from leveret_dispatcher.commands.router import TABLE, _by_owner, table
from leveret_dispatcher.commands.workers import MOST_MATCHES, matches
from leveret_dispatcher.matching import Session
from leveret_proto.capability import Capabilities, ImageOffer, Requirement
from leveret_proto.messages import REGISTRY
from leveret_proto.topology import COMMANDS, DISPATCHER_WORDS, EXCHANGES, LOGSINK_WORDS

WANTED = Requirement(arch="x86_64", image="debian/trixie", kvm=True, tags=("disk=large",))


def test_every_command_that_reaches_the_dispatcher_has_a_handler() -> None:
    (exchange,) = (exchange for exchange in EXCHANGES if exchange.name == COMMANDS)
    logsinks = {f"command.{word}.v1" for word in LOGSINK_WORDS}
    assert {model.TYPE for model in TABLE} == set(exchange.messages) - logsinks
    assert {word for word, _ in TABLE.values()} == set(DISPATCHER_WORDS)
    assert all(REGISTRY[model.TYPE] is model for model in TABLE)


def test_two_families_can_not_take_the_same_command() -> None:
    with pytest.raises(ValueError, match=r"command\.\w+\.v1 stands in two families"):
        table(jobs.HANDLERS, jobs.HANDLERS)


@dataclass
class Sent:
    routing_key: str
    number: int


@given(st.lists(st.tuples(st.sampled_from(["show", "dead"]), st.sampled_from(["~a", "~b", "~a.x", ""]))))
def test_an_owners_commands_stay_in_order_and_with_nobody_elses(given: list[tuple[str, str]]) -> None:
    batch = [Sent(f"{word}.{owner}", number) for number, (word, owner) in enumerate(given)]
    parts = _by_owner(batch)  # type: ignore[arg-type]
    owners = [{delivery.routing_key.split(".", 1)[1] for delivery in part} for part in parts]  # type: ignore[union-attr]
    assert all(len(one) == 1 for one in owners) and len(parts) == len({one for (one,) in owners})
    assert sorted(sent.number for part in parts for sent in part) == list(range(len(batch)))  # type: ignore[attr-defined]
    for part in parts:
        numbers = [sent.number for sent in part]  # type: ignore[attr-defined]
        assert numbers == sorted(numbers)


def session(
    name: str, *, image: str = "debian/trixie", kvm: bool = True, tags: tuple[str, ...] = ("disk=large",),
    free: int = 0, draining: bool = False,
) -> Session:  # fmt: skip
    offer = Capabilities(
        images=(ImageOffer(arch="x86_64", name=image, digest="0"),), kvm=("x86_64",) if kvm else (), tags=tags
    )
    return Session(name, name, name, offer, 4, draining, free={str(number): None for number in range(free)})


def test_workers_that_could_run_a_job_come_first_then_the_nearest() -> None:
    sessions = [
        session("no-image", image="x"), session("no-tag", tags=()), session("drains", draining=True, free=1),
        session("full"), session("no-kvm", kvm=False), session("idle", free=2),
    ]  # fmt: skip
    found = matches(WANTED, sessions)
    assert [(match.worker, match.lack, match.lacks) for match in found] == [
        ("idle", None, None), ("full", None, None), ("drains", None, None),
        ("no-tag", "tags", "disk=large"), ("no-kvm", "kvm", "x86_64"), ("no-image", "image", "debian/trixie"),
    ]  # fmt: skip
    assert [match.free for match in found[:3]] == [2, 0, 1]


def test_no_more_are_named_than_a_person_reads() -> None:
    many = [session(f"able-{n}") for n in range(100)] + [session(f"unable-{n}", tags=()) for n in range(100)]
    found = matches(WANTED, many)
    assert [match.lack is None for match in found] == [True] * MOST_MATCHES + [False] * MOST_MATCHES
