"""Secrets over the broker: kept, listed, removed; given to the owner's jobs alone, sealed to the claiming session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
import pytest

from leveret_proto import keys
from leveret_proto.capability import SECRETS_TAG
from leveret_proto.messages import (
    MAX_SECRET,
    AddSecret,
    AskSecretsKey,
    CommandFailed,
    Grant,
    JobStatus,
    ListSecrets,
    Message,
    Reason,
    RemoveSecret,
    SecretsKeyReply,
    SecretsReply,
    SecretView,
    WorkerEvent,
)
from leveret_proto.topology import COMMANDS, DISPATCHER_WORKERS
from leveret_runtime.sealing import KeyPair, SealError, seal
from tests.integration.dispatcher.dispatcher_lab import LIMIT, OFFER, FakeWorker, Lab, held, token
from tests.support.system import SECRETS_KEY

VALUE = b"s3cret-value-" + b"0123456789" * 3
TAKES_SECRETS = OFFER.model_copy(update={"tags": (SECRETS_TAG,)})
NAMED = {"secrets": ["deploy key"]}


@asynccontextmanager
async def dispatching(lab: Lab, **changes: Any) -> AsyncIterator[None]:
    async with lab.dispatcher(**{"secrets_key": SECRETS_KEY} | changes):
        yield


@asynccontextmanager
async def taking_secrets(lab: Lab, *tokens: str) -> AsyncIterator[tuple[FakeWorker, KeyPair]]:
    """A worker's session with a key pair of its own, that has said so."""
    pair = KeyPair()
    async with lab.worker(offer=TAKES_SECRETS) as worker:
        await worker.beat(*tokens, public_key=pair.public_key)
        yield worker, pair


async def command_for(lab: Lab, value: bytes = VALUE, **fields: Any) -> AddSecret:
    answer = await lab.command(AskSecretsKey())
    assert isinstance(answer, SecretsKeyReply), answer
    given = {"kind": "file", "name": "deploy key"} | fields
    if given["kind"] == "file":
        given = {"path": "~/token"} | given
    return AddSecret(sealed_to=answer.public_key, sealed=seal(value, answer.public_key), **given)


async def add(lab: Lab, value: bytes = VALUE, *, owner: str = "~alice", **fields: Any) -> SecretView:
    answer = await lab.command(await command_for(lab, value, **fields), owner)
    assert isinstance(answer, SecretsReply), answer
    return answer.secrets[0]


async def refused(lab: Lab, command: Message, owner: str = "~alice") -> CommandFailed:
    answer = await lab.command(command, owner)
    assert isinstance(answer, CommandFailed), answer
    assert VALUE.decode() not in answer.message
    return answer


async def listed(lab: Lab, owner: str = "~alice") -> list[SecretView]:
    answer = await lab.command(ListSecrets(), owner)
    assert isinstance(answer, SecretsReply), answer
    return list(answer.secrets)


async def test_a_secret_is_kept_listed_and_removed_for_its_owner_alone(lab: Lab) -> None:
    async with dispatching(lab):
        added = await add(lab, mode=0o640)
        assert (added.kind, added.name, added.path, added.mode) == ("file", "deploy key", "~/token", 0o640)
        unnamed = await add(
            lab, b"-----BEGIN X PRIVATE KEY-----\n-----END X PRIVATE KEY-----", kind="ssh-key", name=None
        )
        assert await listed(lab) == [added, unnamed]
        assert await listed(lab, "~mallory") == []
        for name in ("deploy key", added.uuid):
            assert (await refused(lab, RemoveSecret(secret=name), "~mallory")).code == "not-found"
        for name, gone in (("deploy key", added), (unnamed.uuid.upper(), unnamed)):
            assert await lab.command(RemoveSecret(secret=name)) == SecretsReply(secrets=(gone,))
        assert await listed(lab) == []


async def test_the_same_command_keeps_one_secret(lab: Lab) -> None:
    async with dispatching(lab):
        command = await command_for(lab)
        for nth in (1, 2):
            await given_as(lab, command, "m-1")
            await lab.replies.until(SecretsReply, nth=nth)
        first, second = lab.replies.of(SecretsReply)
        assert first == second
        assert await listed(lab) == list(first.secrets)


async def given_as(lab: Lab, command: AddSecret, message_id: str) -> None:

    exchange = await lab.channel.get_exchange(COMMANDS, ensure=False)
    body = command.model_dump_json().encode()
    await exchange.publish(
        aio_pika.Message(body, type=command.TYPE, message_id=message_id, reply_to=lab.reply_queue, correlation_id="1"),
        keys.command("secrets", "~alice"),
    )


async def test_what_can_not_be_kept_is_refused_with_its_reason(lab: Lab) -> None:
    async with dispatching(lab, secrets_most=2):
        first = await command_for(lab)
        await add(lab)
        taken = await refused(lab, first)
        assert taken.code == "conflict" and "'deploy key'" in taken.message
        await add(lab, owner="~bob")  # a name is its owner's

        old = KeyPair()
        sealed = {"sealed_to": old.public_key, "sealed": seal(VALUE, old.public_key)}
        assert "replaced" in (await refused(lab, first.model_copy(update=sealed | {"name": "other"}))).message
        broken = first.model_copy(update={"sealed": seal(VALUE, old.public_key), "name": "other"})
        assert (await refused(lab, broken)).code == "bad-request"
        for value, fields, told in (
            (VALUE, {"kind": "ssh-key"}, "SSH"), (VALUE, {"kind": "pgp-key"}, "PGP"), (VALUE, {"path": "../x"}, "'..'"),
            (b"", {}, "empty"), (VALUE, {"name": "abc"}, "bytes"),
        ):  # fmt: skip
            answer = await refused(lab, await command_for(lab, value, **{"name": "other"} | fields))
            assert answer.code == "bad-request" and told in answer.message

        await add(lab, b"x" * MAX_SECRET, name="second")
        most = await refused(lab, await command_for(lab, name="third"))
        assert most.code == "conflict" and "2 is the most" in most.message


async def test_a_grant_carries_the_owner_s_secrets_sealed_to_its_session(lab: Lab) -> None:
    async with dispatching(lab), taking_secrets(lab, token()) as (worker, pair):
        added = await add(lab, mode=0o644)
        await add(lab, b"of another", owner="~bob")
        job = await lab.submit(manifest={"secrets": ["deploy key", added.uuid, added.uuid.upper()]})
        (given,) = (await worker.grant_of(job)).secrets  # named three times, given once
        assert (given.uuid, given.kind, given.name) == (added.uuid, "file", "deploy key")
        assert (given.path, given.mode) == ("~/token", 0o644)
        assert pair.open(given.sealed) == VALUE
        with pytest.raises(SealError):
            KeyPair().open(given.sealed)


async def test_secrets_that_the_submission_switched_off_are_withheld(lab: Lab) -> None:
    async with dispatching(lab), taking_secrets(lab, token(), token()) as (worker, _):
        await add(lab)
        withheld = await lab.submit(manifest=NAMED, secrets=False)
        assert (await worker.grant_of(withheld)).secrets == ()
        # not even one that does not exist is looked for
        unknown = await lab.submit(manifest={"secrets": ["no such key"]}, secrets=False)
        assert (await worker.grant_of(unknown)).secrets == ()


@pytest.mark.parametrize("name", ["not there", "47bab9ee-7ff4-4ad7-bb02-a624eb2af5eb"])
async def test_a_missing_or_foreign_secret_fails_the_job_at_once(lab: Lab, name: str) -> None:
    async with dispatching(lab):
        foreign = await add(lab, owner="~bob", name="not there")
        for named in (name, foreign.uuid):
            job = await lab.submit(manifest={"secrets": [named]})
            failed = await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
            assert failed.detail is not None and f"'{named}': no such secret of ~alice" in failed.detail
            assert lab.course(job) == ["pending", "failed"]


async def test_a_secret_removed_while_its_job_waits_fails_the_job_and_spends_no_slot(lab: Lab) -> None:
    async with dispatching(lab), taking_secrets(lab) as (worker, pair):
        added = await add(lab)
        job = await lab.submit(manifest=NAMED)
        await lab.job_is(job, JobStatus.PENDING, reason=Reason.BUSY)
        await lab.command(RemoveSecret(secret=added.uuid))
        slot = token()
        await worker.beat(slot, public_key=pair.public_key)
        failed = await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
        assert failed.attempt is None
        other = await lab.submit()
        assert (await worker.grant_of(other)).token == slot


async def test_a_worker_without_a_key_is_given_no_job_with_secrets(lab: Lab) -> None:
    async with dispatching(lab), lab.worker() as worker:
        await add(lab)
        await worker.beat(token())
        job = await lab.submit(manifest=NAMED)
        waiting = await lab.job_is(job, JobStatus.PENDING, reason=Reason.NO_WORKER)
        assert waiting.detail is not None and SECRETS_TAG in waiting.detail
        await worker.grant_of(await lab.submit())
        pair = KeyPair()
        worker.offer = TAKES_SECRETS
        await worker.beat(token(), public_key=pair.public_key, held=(held(worker.inbox.of(Grant)[0]),))
        (given,) = (await worker.grant_of(job)).secrets
        assert pair.open(given.sealed) == VALUE


async def test_a_beat_whose_key_is_none_is_filed(lab: Lab) -> None:
    async with dispatching(lab), lab.worker(offer=TAKES_SECRETS) as worker:
        await worker.beat(token())
        await worker.beat(token(), public_key="A" * 43 + "=")
        await listed(lab)  # once it is answered, the tables are there
        async with asyncio.timeout(LIMIT):
            while len(reasons := await filed(lab)) < 2:
                await asyncio.sleep(0.05)
        assert "gives no public key" in reasons[0] and "public_key: " in reasons[1]
        assert lab.events.of(WorkerEvent) == []


async def filed(lab: Lab) -> list[str]:
    on = await asyncpg.connect(lab.database.dsn)
    try:
        rows = await on.fetch("select reason from dispatch.dead where queue = $1 order by id", DISPATCHER_WORKERS)
        return [row["reason"] for row in rows]
    finally:
        await on.close()


async def test_a_new_leader_publishes_a_grant_again_with_its_secrets(lab: Lab) -> None:
    async with lab.worker(offer=TAKES_SECRETS) as worker:
        pair = KeyPair()
        async with dispatching(lab):
            await add(lab)
            await worker.beat(token(), public_key=pair.public_key)
            job = await lab.submit(manifest=NAMED)
            first = await worker.grant_of(job)
        async with dispatching(lab):
            again = await worker.grant_of(job, nth=2)
            assert (again.grant, again.token) == (first.grant, first.token)
            assert [pair.open(secret.sealed) for secret in again.secrets] == [VALUE]


async def test_a_secret_removed_under_a_grant_that_got_lost_fails_the_job(lab: Lab) -> None:
    async with lab.worker(offer=TAKES_SECRETS) as worker:
        pair = KeyPair()
        async with dispatching(lab):
            added = await add(lab)
            await worker.beat(token(), public_key=pair.public_key)
            job = await lab.submit(manifest=NAMED)
            await worker.grant_of(job)
            await lab.command(RemoveSecret(secret=added.uuid))
        async with dispatching(lab):
            await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
        assert len(worker.inbox.of(Grant)) == 1


async def test_a_session_that_drops_its_key_stops_nobody(lab: Lab) -> None:
    """Its grant seems lost, and can't be sealed again: it is left to its lease."""
    async with dispatching(lab), taking_secrets(lab, token()) as (worker, _):
        await add(lab)
        job = await lab.submit(manifest=NAMED)
        await worker.grant_of(job)
        worker.offer = OFFER
        for _ in range(4):  # after the second that does not list the grant, it would be published again
            await worker.beat()
        await worker.beat(token())
        other = await lab.submit()
        await worker.grant_of(other)
        assert [grant.facts.job for grant in worker.inbox.of(Grant)] == [job, other]


async def test_without_a_secrets_key_nothing_is_kept_and_a_job_that_names_secrets_fails_at_once(lab: Lab) -> None:
    async with dispatching(lab):
        command = await command_for(lab)
        await add(lab)
    async with dispatching(lab, secrets_key=None):
        for asked in (AskSecretsKey(), command):
            answer = await refused(lab, asked)
            assert answer.code == "unavailable" and "secrets_key" in answer.message
        assert len(await listed(lab)) == 1
        job = await lab.submit(manifest=NAMED)
        failed = await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
        assert failed.detail is not None and "secrets_key" in failed.detail


async def test_under_another_secrets_key_a_job_fails_and_names_the_secret(lab: Lab) -> None:
    async with dispatching(lab):
        await add(lab)
    async with dispatching(lab, secrets_key="A" * 43 + "="):
        job = await lab.submit(manifest=NAMED)
        failed = await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
        assert failed.detail is not None and "'deploy key'" in failed.detail and "another key" in failed.detail


async def test_rows_that_were_swapped_are_not_opened(lab: Lab) -> None:
    async with dispatching(lab):
        mine, theirs = await add(lab), await add(lab, b"of another", owner="~bob")
        on = await asyncpg.connect(lab.database.dsn)
        try:
            await on.execute(
                "update dispatch.secret set value = (select value from dispatch.secret where id = $1) where id = $2",
                theirs.uuid, mine.uuid,
            )  # fmt: skip
        finally:
            await on.close()
        job = await lab.submit(manifest=NAMED)
        await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)


async def test_more_than_a_grant_can_carry_fails_the_job(lab: Lab) -> None:
    async with dispatching(lab):
        names = [f"part {number:02}" for number in range(33)]
        for name in names:
            await add(lab, b"x" * MAX_SECRET, name=name)
        job = await lab.submit(manifest={"secrets": names})
        failed = await lab.job_is(job, JobStatus.FAILED, reason=Reason.SECRET_MISSING)
        assert failed.detail is not None and "bytes together" in failed.detail
