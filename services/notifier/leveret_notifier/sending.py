"""Sends the deliveries that are due, several at a time, and records each outcome together with its event."""

import asyncio
import random

import structlog

from leveret_notifier import store
from leveret_notifier.ended import named
from leveret_notifier.failpoints import DELIVERY_BEFORE_SEND, DELIVERY_BETWEEN_SEND_AND_COMMIT
from leveret_notifier.mail import MailSender
from leveret_notifier.metrics import TRIES
from leveret_notifier.outcome import Outcome, failed, retrying
from leveret_notifier.schedule import Schedule
from leveret_notifier.store import Delivery
from leveret_notifier.webhook import WebhookSender
from leveret_proto import keys
from leveret_proto.messages import DeliveryEvent, EndedJob, JobFacts
from leveret_proto.topology import RECORD
from leveret_runtime.db import Connection, Database
from leveret_runtime.failpoints import failpoint
from leveret_runtime.outbox import Outbox, next_seq, put
from leveret_runtime.waits import pause

log = structlog.get_logger(__name__)

#: Seconds between looks at the table where nobody wakes us (another notifier may have added to it).
IDLE = 5.0


class Sending:
    """The loop over due deliveries. `wake` it after a commit that added some."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        schedule: Schedule,
        webhooks: WebhookSender,
        mails: MailSender | None,
        *,
        claim_seconds: float,
        concurrency: int,
    ) -> None:
        """`mails`: None where this installation sends none. `claim_seconds`: see `store.claim`."""
        self._database = database
        self._outbox = outbox
        self._schedule = schedule
        self._webhooks = webhooks
        self._mails = mails
        self._claim_seconds = claim_seconds
        self._concurrency = self._free = concurrency
        self._wake = asyncio.Event()

    @property
    def under_way(self) -> int:
        """Deliveries that are being sent."""
        return self._concurrency - self._free

    def wake(self) -> None:
        """A delivery may be due, or a place free."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; what has begun is brought to its end."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                self._wake.clear()
                begun = await store.claim(self._database, self._free, self._claim_seconds) if self._free else []
                self._free -= len(begun)
                for delivery in begun:
                    group.create_task(self._deliver(delivery))
                await pause(await self._seconds_to_next(), self._wake, stop)

    async def _seconds_to_next(self) -> float:
        if not self._free:
            return IDLE
        found = await store.seconds_to_next(self._database)
        return IDLE if found is None else min(max(found, 0.0), IDLE)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            failpoint(DELIVERY_BEFORE_SEND)
            outcome = await self._send(delivery)
            failpoint(DELIVERY_BETWEEN_SEND_AND_COMMIT)
            await self._record(delivery, outcome)
        finally:
            self._free += 1
            self.wake()

    async def _send(self, delivery: Delivery) -> Outcome:
        try:
            if delivery.trigger.action == "webhook":
                return await self._webhooks.send(delivery.ended, delivery.trigger, delivery.id)
            if self._mails is None:
                return failed("this installation sends no mail")
            return await self._mails.send(
                delivery.ended, delivery.trigger, delivery.id, delivery.remaining, delivery.reached
            )
        except Exception as error:
            # One trigger's oddity must not stop everyone's: it costs its own tries, and the log says where we failed.
            log.exception("fault while sending", delivery=str(delivery.id), **named(delivery.ended))
            return retrying("a fault in the notifier", repr(error))

    async def _record(self, delivery: Delivery, outcome: Outcome) -> None:
        delay = 0.0
        if outcome.status == "retrying":
            planned = self._schedule.delay(delivery.tries, random.random(), outcome.wished)
            if planned is None:
                outcome = _given_up(delivery, outcome)
            else:
                delay = planned
        async with self._database.transaction() as on:
            counted = await store.record(on, delivery, outcome, delay)
            if counted and isinstance(delivery.ended, EndedJob):
                await _put_event(on, delivery, delivery.ended.facts, outcome)
        self._outbox.wake()
        TRIES.labels(delivery.trigger.action, outcome.status).inc()
        log.info(
            "delivery" if counted else "delivery, too late to count",
            delivery=str(delivery.id), **named(delivery.ended), action=delivery.trigger.action, status=outcome.status,
            tries=delivery.tries, detail=outcome.detail, answer=outcome.answer[:200],
            again_in=round(delay, 1),
        )  # fmt: skip


def _given_up(delivery: Delivery, outcome: Outcome) -> Outcome:
    """End a delivery after its last try; a mail that reached someone has been delivered, if not to all."""
    if delivery.reached + outcome.reached:
        return Outcome("delivered", f"not to everyone: {outcome.detail}", outcome.answer, reached=outcome.reached)
    return failed(f"given up after {delivery.tries} tries: {outcome.detail}", outcome.answer)


async def _put_event(on: Connection, delivery: Delivery, facts: JobFacts, outcome: Outcome) -> None:
    """Tell of a job's delivery. Events are numbered by job, so a group's deliveries stand in the log alone."""
    event = DeliveryEvent(
        facts=facts,
        source="notifier",
        seq=await next_seq(on, facts.job),
        at=await on.fetchval("select now()"),
        delivery=str(delivery.id),
        action=delivery.trigger.action,
        status=outcome.status,
        tries=delivery.tries,
        detail=outcome.detail,
    )
    key = keys.delivery_event(facts.visibility, facts.owner, facts.job, outcome.status)
    await put(on, facts.job, RECORD, key, event)
