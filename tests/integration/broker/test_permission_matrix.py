"""Every kind of account against everything there is to do at the broker: allowed where the tables below say so, and
nowhere else. The tables say what is meant, in plain words of the topology; `permissions.py` has to come up to them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiormq.exceptions import ChannelLockedResource

from leveret_proto import permissions
from leveret_proto import topology as t
from tests.integration.broker.account import Account
from tests.support.vhosts import Vhost

SESSION = "0198c0de-0000-7000-8000-000000000001"
ACCOUNTS = {
    **{name: permissions.service(name) for name in permissions.SERVICES},
    "w1": permissions.worker("w1"),
    "me": permissions.submitter(("me",)),
    "reader": permissions.subscriber("reader", ("me",)),
    "boss": permissions.operator(),
}
SERVICES = set(permissions.SERVICES)

#: (exchange, key) → the accounts that may publish so.
PUBLISH: dict[tuple[str, str], set[str]] = {
    # the dispatcher submits a job again that is retried, and sends a dead letter back to wherever it came from
    (t.SUBMIT, "me.project"): {"me", "boss", "dispatcher"},
    (t.SUBMIT, "other.project"): {"boss", "dispatcher"},
    (t.SUBMIT, "me.project.more"): {"dispatcher"},
    (t.SUBMIT, "me%2Eother.project"): {"boss", "dispatcher"},
    (t.JOBS, "x86_64.debian/trixie.any"): {"intake", "dispatcher"},
    (t.WORKERS, "w1"): {"w1", "dispatcher"},
    (t.WORKERS, "w2"): {"dispatcher"},
    (t.WORKERS, "w1.w2"): {"dispatcher"},
    (t.WORK, f"x86_64.debian/trixie.any.w1.{SESSION}"): {"dispatcher"},
    (t.CONTROL, f"w1.{SESSION}"): {"dispatcher"},
    (t.RESEND, "w1"): {"logsink", "dispatcher"},
    (t.STATUS, "w1.1.1"): {"w1", "dispatcher"},
    (t.STATUS, "w2.1.1"): {"dispatcher"},
    (t.STATUS, "w1.w2.1.1"): {"dispatcher"},
    **{(t.COMMANDS, f"{word}.me"): {"me", "boss", "dispatcher"} for word in (*t.OWNER_WORDS, *t.LOGSINK_WORDS)},
    **{(t.COMMANDS, f"{word}.other"): {"boss", "dispatcher"} for word in (*t.OWNER_WORDS, *t.LOGSINK_WORDS)},
    (t.COMMANDS, "dead.me"): {"boss", "dispatcher"},
    (t.COMMANDS, "dead.boss"): {"boss", "dispatcher"},
    (t.COMMANDS, "worker.me"): {"boss", "dispatcher"},
    (t.COMMANDS, "cancel.me.other"): {"dispatcher"},
    (t.LOGS, "01.w1.1.1.build"): {"w1", "dispatcher"},
    (t.LOGS, "01.w2.1.1.build"): {"dispatcher"},
    (t.ARTIFACTS, "01.w1.1.1"): {"w1", "dispatcher"},
    (t.ARTIFACTS, "01.w2.1.1"): {"dispatcher"},
    (t.TAIL, "public.me.1.build"): {"logsink", "dispatcher"},
    (t.RECORD, "job.public.me.1.success"): SERVICES,
    (t.EVENTS, "job.public.me.1.success"): SERVICES,
    (t.NOTIFY, "1"): {"dispatcher"},
    (t.DEAD, t.INTAKE_SUBMISSIONS): SERVICES,
    # the default exchange reaches every queue: for answers, so for those that answer
    ("", "amq.gen-nobody"): {"intake", "dispatcher", "logsink"},
    ("amq.topic", "anything"): set(),
    ("amq.fanout", ""): set(),
}
#: (exchange, pattern) → the accounts that may bind their queue so.
BIND: dict[tuple[str, str], set[str]] = {
    (t.EVENTS, "#"): {"boss"},
    (t.EVENTS, "job.#"): {"boss"},
    (t.EVENTS, "job.*.me.#"): {"boss"},
    (t.EVENTS, "*.public.*.#"): {"boss"},
    (t.EVENTS, "job.public.#"): {"me", "reader", "boss"},
    (t.EVENTS, "job.public.*.*.failed"): {"me", "reader", "boss"},
    (t.EVENTS, "task.public.other.7.#"): {"me", "reader", "boss"},
    (t.EVENTS, "job.private.me.#"): {"me", "reader", "boss"},
    (t.EVENTS, "log.unlisted.me.7.#"): {"me", "reader", "boss"},
    (t.EVENTS, "submission.private.me.rejected"): {"me", "reader", "boss"},
    (t.EVENTS, "delivery.private.me.#"): {"me", "reader", "boss"},
    (t.EVENTS, "job.private.other.#"): {"boss"},
    (t.EVENTS, "job.unlisted.other.#"): {"boss"},
    (t.EVENTS, "job.private.*.#"): {"boss"},
    (t.EVENTS, "job.private.#"): {"boss"},
    (t.EVENTS, "job.unlisted.#.me"): {"boss"},
    (t.EVENTS, "worker.#"): {"me", "reader", "boss"},
    (t.EVENTS, "group.public.#"): {"me", "reader", "boss"},
    (t.EVENTS, "group.private.me.#"): {"me", "reader", "boss"},
    (t.EVENTS, "group.private.other.#"): {"boss"},
    (t.TAIL, "#"): {"boss"},
    (t.TAIL, "public.#"): {"boss"},
    (t.TAIL, "public.*.7.#"): {"me", "reader", "boss"},
    (t.TAIL, "private.me.#"): {"me", "reader", "boss"},
    (t.TAIL, "private.other.#"): {"boss"},
    (t.TAIL, "*.me.#"): {"boss"},
    (t.RECORD, "#"): set(),
    (t.RECORD, "job.private.me.#"): set(),
    (t.NOTIFY, "#"): set(),
    (t.DEAD, "#"): set(),
    (t.SUBMIT, "me.*"): set(),
    (t.JOBS, "#"): set(),
    (t.STATUS, "w1.#"): set(),
    (t.WORKERS, "w1"): set(),
    (t.COMMANDS, "#"): set(),
    (t.LOGS, "01.w1.#"): set(),
    (t.ARTIFACTS, "01.w1.#"): set(),
    (t.WORK, f"x86_64.debian/trixie.any.w1.{SESSION}"): {"w1"},
    (t.WORK, f"x86_64.debian/trixie.kvm.w1.{SESSION}"): {"w1"},
    (t.WORK, f"x86_64.debian/trixie.any.w2.{SESSION}"): set(),
    (t.WORK, f"x86_64.*.any.w1.{SESSION}"): set(),
    (t.WORK, f"#.w1.{SESSION}"): set(),
    (t.WORK, "#"): set(),
    (t.CONTROL, f"w1.{SESSION}"): {"w1"},
    (t.CONTROL, f"w2.{SESSION}"): set(),
    (t.CONTROL, "w1.#"): set(),
    (t.CONTROL, "#"): set(),
    (t.RESEND, "w1"): {"w1"},
    (t.RESEND, "w2"): set(),
    (t.RESEND, "#"): set(),
}
#: Queue to declare → the accounts that may.
DECLARE: dict[str, set[str]] = {
    "": {"w1", "me", "reader", "boss"},
    "leveret.canary.1": set(),
    "leveret.session.w1": set(),
    "leveret.client.reader.board": {"reader"},
    "leveret.client.other.board": set(),
    "leveret.intake.more": set(),
    "leveret.dispatcher.more": set(),
    "anything": set(),
}
#: Queues that others read than the service they are named after.
READERS = {t.REPLAY: {"logsink"}}
#: One of each kind stands for the 16 partitions.
QUEUES = [queue for queue in t.QUEUES if not queue.name[-2:].isdigit() or queue.name.endswith("07")]


@asynccontextmanager
async def accounts(vhost: Vhost) -> AsyncIterator[dict[str, Account]]:
    await vhost.provision({**ACCOUNTS, "w2": permissions.worker("w2")})
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(Account.connected(name, vhost.url(name)))
            for name in (*ACCOUNTS, "w2")
        }


async def compare(
    what: str,
    people: dict[str, Account],
    table: Iterable[tuple[object, set[str]]],
    attempt: Callable[[Account, object], Awaitable[bool]],
) -> None:
    """Have every account try every row; fail with each cell that is not as the table says."""
    counts: Counter[bool] = Counter()
    wrong: list[str] = []
    for row, intended in table:
        for name in ACCOUNTS:
            allowed = await attempt(people[name], row)
            counts[allowed] += 1
            if allowed != (name in intended):
                wrong.append(f"{name} {'may' if allowed else 'may not'} {what} {row}")
    print(f"{what}: {counts[True]} allowed, {counts[False]} refused")  # noqa: T201
    assert not wrong, "\n".join(wrong)
    assert counts[True] and counts[False]


async def test_who_may_publish_what(vhost: Vhost) -> None:
    async with accounts(vhost) as people:
        await compare("publish", people, PUBLISH.items(), lambda one, row: one.may_publish(*row))  # type: ignore[misc]


async def test_who_may_bind_what(vhost: Vhost) -> None:
    async with accounts(vhost) as people:
        queues = {name: service_queue(name) for name in permissions.SERVICES}
        queues |= {name: await people[name].own_queue() for name in ("w1", "me", "boss")}
        queues |= {"reader": await people["reader"].own_queue("leveret.client.reader.bind")}
        await compare(
            "bind", people, BIND.items(), lambda one, row: one.may_bind(queues[one.name], *row)  # type: ignore[misc]
        )  # fmt: skip


async def test_who_may_consume_and_purge_what(vhost: Vhost) -> None:
    """Read permission allows purging too, so that a queue must be its reader's alone."""
    async with accounts(vhost) as people:
        another = await people["w2"].own_queue()
        for one in people.values():
            if one.name != "w2":
                with suppress(ChannelLockedResource):  # its name passes, but it is exclusive to another connection
                    assert not await one.may_consume(another)
                with suppress(ChannelLockedResource):
                    assert not await one.may_purge(another)
        await vhost.api("PUT", f"queues/{vhost.name}/leveret.client.other.board", {"durable": True})
        shared = [(queue.name, READERS.get(queue.name, {queue.service} & SERVICES)) for queue in QUEUES]
        private = [("leveret.client.other.board", set[str]())]
        await compare("consume", people, shared + private, lambda one, row: one.may_consume(str(row)))
        purged = [(name, who) for name, who in shared + private if name != t.REPLAY]  # a stream can't be purged
        await compare("purge", people, purged, lambda one, row: one.may_purge(str(row)))


async def test_who_may_declare_and_delete_what(vhost: Vhost) -> None:
    async with accounts(vhost) as people:
        await compare("declare", people, DECLARE.items(), lambda one, row: one.may_declare(str(row)))
        ours = [(queue.name, set[str]()) for queue in QUEUES]
        deleting = [*ours, ("leveret.client.reader.board", {"reader"})]
        await compare("delete", people, deleting, lambda one, row: one.may_delete(str(row)))


def service_queue(service: str) -> str:
    return next(queue.name for queue in t.QUEUES if queue.service == service)


class TestDetours:
    """Ways around a topic grant: what comes out at the other end must bear a key that the account may use."""

    @pytest.mark.parametrize("name", ["amq.gen-x", "leveret.client.me.x", "leveret.client.x", "leveret.submit.x"])
    async def test_a_submitter_can_make_no_exchange_of_its_own(self, vhost: Vhost, name: str) -> None:
        """Else: bind leveret.submit to it, publish there as another owner."""
        async with accounts(vhost) as people:
            assert not await people["me"].may_declare_exchange(name)

    @pytest.mark.parametrize("name", ["amq.gen-x", "leveret.session.w1", "w1"])
    async def test_a_worker_can_make_no_exchange_of_its_own(self, vhost: Vhost, name: str) -> None:
        """Else: bind leveret.status to it, publish there as another worker."""
        async with accounts(vhost) as people:
            assert not await people["w1"].may_declare_exchange(name)

    async def test_a_subscriber_can_bind_none_of_ours_to_its_own_exchange(self, vhost: Vhost) -> None:
        async with accounts(vhost) as people:
            reader = people["reader"]
            assert await reader.may_declare_exchange("leveret.client.reader.x")
            for exchange in t.EXCHANGES:
                assert not await reader.may_bind_exchange(exchange.name, "leveret.client.reader.x", "#")

    async def test_a_copy_header_changes_no_key(self, vhost: Vhost) -> None:
        """RabbitMQ's CC header routes to more keys; a consumer still sees the guarded one."""
        async with accounts(vhost) as people:
            # RabbitMQ 3.10 lets it pass, 4.0 checks the copy's key too and refuses
            passed = await people["me"].may_publish(t.SUBMIT, "me.p", b"copied", headers={"CC": ["other.p"]})
            expected = [("me.p", b"copied")] if passed else []
            assert await received(people["intake"], t.INTAKE_SUBMISSIONS) == expected

    async def test_events_bound_to_the_submissions_exchange_do_not_reach_intake(self, vhost: Vhost) -> None:
        """The broker lets whoever reads the one and writes to the other tie them together."""
        async with accounts(vhost) as people:
            for kind in ("job", "submission", "task", "log", "delivery"):
                assert await people["me"].may_bind_exchange(t.SUBMIT, t.EVENTS, f"{kind}.public.*.#")
            assert await people["me"].may_bind_exchange(t.SUBMIT, t.EVENTS, "worker.#")
            assert await people["me"].may_bind_exchange(t.SUBMIT, t.TAIL, "public.*.#")
            for key in ("job.public.o.1.success", "submission.public.o.rejected", "worker.w1.joined"):
                assert await people["dispatcher"].may_publish(t.EVENTS, key, b"event")
            assert await people["logsink"].may_publish(t.TAIL, "public.o.1.build", b"log")
            assert await people["me"].may_publish(t.SUBMIT, "me.p", b"mine")
            assert await received(people["intake"], t.INTAKE_SUBMISSIONS) == [("me.p", b"mine")]


async def received(by: Account, queue: str) -> list[tuple[str | None, bytes]]:
    """Everything that waits in `queue`."""
    found: list[tuple[str | None, bytes]] = []
    async with asyncio.timeout(15):
        source = await (await by.on.channel()).get_queue(queue, ensure=False)
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            found.append((message.routing_key, message.body))
    return found
