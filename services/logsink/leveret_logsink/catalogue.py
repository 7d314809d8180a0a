"""What readers may find: jobs, and the logs and artifacts of the worker that really had the attempt."""

from leveret_logsink import streams
from leveret_logsink.chunks import Kind
from leveret_logsink.streams import Stream
from leveret_proto.base import JobFacts, Visibility
from leveret_runtime.db import Database


class Catalogue:
    """Looks things up; changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def job(self, job: int) -> JobFacts | None:
        """Give what is known of a job."""
        async with self._database.connection() as on:
            facts = await on.fetchval("select facts from job where job = $1", job)
        return None if facts is None else JobFacts.model_validate_json(facts)

    async def job_for(self, owner: str, job: int) -> JobFacts | None:
        """Give what is known of a job that `owner` may know: its own, and public ones."""
        facts = await self.job(job)
        allowed = facts is not None and (facts.owner == owner or facts.visibility is Visibility.PUBLIC)
        return facts if allowed else None

    async def latest_attempt(self, job: int) -> int | None:
        """Give the newest attempt that was heard of."""
        async with self._database.connection() as on:
            attempt: int | None = await on.fetchval("select max(attempt) from attempt where job = $1", job)
        return attempt

    async def logs(self, job: int, attempt: int) -> list[Stream]:
        """Give an attempt's logs, in the order they began."""
        return await self._streams("log", job, attempt)

    async def artifacts(self, job: int, attempt: int) -> list[Stream]:
        """Give an attempt's artifacts, proven or not, in the order they began."""
        return await self._streams("artifact", job, attempt)

    async def log(self, job: int, attempt: int, task: str) -> Stream | None:
        """Give one log."""
        return await self._stream("log", job, attempt, task)

    async def artifact(self, job: int, attempt: int, index: int) -> Stream | None:
        """Give one artifact, proven or not."""
        return await self._stream("artifact", job, attempt, str(index))

    async def _streams(self, kind: Kind, job: int, attempt: int) -> list[Stream]:
        async with self._database.connection() as on:
            rows = await on.fetch(
                f"""
                select {streams.COLUMNS} from stream s join attempt a using (job, attempt, worker)
                where s.kind = $1 and job = $2 and attempt = $3 order by s.id
                """,
                kind, job, attempt,
            )  # fmt: skip
        return [streams.of_row(row) for row in rows]

    async def _stream(self, kind: Kind, job: int, attempt: int, label: str) -> Stream | None:
        async with self._database.connection() as on:
            row = await on.fetchrow(
                f"""
                select {streams.COLUMNS} from stream s join attempt a using (job, attempt, worker)
                where s.kind = $1 and job = $2 and attempt = $3 and s.label = $4
                """,
                kind, job, attempt, label,
            )  # fmt: skip
        return None if row is None else streams.of_row(row)
