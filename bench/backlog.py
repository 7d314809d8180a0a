"""A backlog of accepted jobs, handed to the dispatcher as intake hands them on: messages on `leveret.jobs`."""

import asyncio
import platform
import secrets
from datetime import UTC, datetime

from bench.crowd import IMAGES
from leveret_proto.base import JobFacts
from leveret_proto.capability import Requirement
from leveret_proto.envelope import pack
from leveret_proto.ids import message_id
from leveret_proto.manifest import read
from leveret_proto.messages import ReadyJob
from leveret_proto.topology import JOBS
from leveret_runtime.broker import Publisher, Refused
from leveret_runtime.db import Database

#: Far from the numbers that intake gives.
FIRST = 1_000_000_000
OWNERS = 20
#: Messages under way to the broker.
WINDOW = 100
#: Seconds before what a full queue refused is published again.
AGAIN = 0.2
#: Seconds between looks, and how many of them in a row must find the dispatcher at rest.
LOOK = 0.2
RESTS = 5


class Backlog:
    """Jobs of several owners and kinds, all of which the crowd serves."""

    def __init__(self, publisher: Publisher, database: Database) -> None:
        """`database`: the dispatcher's, to see when it has come to rest."""
        self._publisher = publisher
        self._database = database
        self._next = FIRST
        self._manifests = {
            image: read(f"image: {image}\ntasks:\n  - nothing: 'true'\n".encode()).manifest for image in IMAGES
        }

    async def add(self, count: int) -> None:
        """Publish `count` jobs; returns when the broker has them all."""
        first, self._next = self._next, self._next + count
        async with asyncio.TaskGroup() as group:
            for start in range(min(WINDOW, count)):
                group.create_task(self._publish(range(first + start, first + count, WINDOW)))

    async def until_waiting(self, count: int) -> None:
        """Return when `count` jobs wait, and the dispatcher has nothing left to tell of them."""
        rests = 0
        while rests < RESTS:
            async with self._database.connection() as on:
                waiting = await on.fetchval("select count(*) from job where status = 'pending' and id >= $1", FIRST)
                unsent = await on.fetchval("select exists (select from outbox)")
            rests = rests + 1 if waiting >= count and not unsent else 0
            await asyncio.sleep(LOOK)

    async def _publish(self, numbers: range) -> None:
        for number in numbers:
            job = self._job(number)
            while True:
                try:
                    await self._publisher.send(JOBS, job.requirement.key, pack(job), app="bench")
                    break
                except Refused:
                    await asyncio.sleep(AGAIN)

    def _job(self, number: int) -> ReadyJob:
        image = IMAGES[number % len(IMAGES)]
        manifest = self._manifests[image]
        if manifest is None:
            raise RuntimeError("the bench's own manifest was rejected")
        return ReadyJob(
            facts=JobFacts(
                job=number, owner=f"~owner-{number // len(IMAGES) % OWNERS}", project="bench",
                submission=message_id(), link=secrets.token_urlsafe(24),
            ),
            manifest=manifest,
            requirement=Requirement(arch=platform.machine(), image=image),
            submitted_at=datetime.now(UTC),
        )  # fmt: skip
