"""The command `links`: where an attempt's logs and artifacts are served, signed where the job is private."""

import time
from datetime import UTC, datetime

from leveret_logsink.catalogue import Catalogue
from leveret_logsink.history import view
from leveret_logsink.signing import Signer
from leveret_logsink.streams import Stream
from leveret_proto.base import JobFacts, Visibility
from leveret_proto.links import artifact_path, log_path
from leveret_proto.messages import ArtifactLink, AskLinks, CommandFailed, LinksReply, LogLink


class Links:
    """Answers `links`."""

    def __init__(self, catalogue: Catalogue, signer: Signer | None, logs_url: str) -> None:
        self._catalogue = catalogue
        self._signer = signer
        self._logs_url = logs_url.rstrip("/")

    async def answer(self, owner: str, asked: AskLinks) -> LinksReply | CommandFailed:
        """Answer `asked` as `owner` may know it: of its own jobs, and of public ones."""
        facts = await self._catalogue.job_for(owner, asked.job)
        if facts is None:
            return CommandFailed(code="not-found", message=f"job {asked.job}: no such job, or it is not yours")
        expires = int(time.time()) + asked.seconds if facts.visibility is Visibility.PRIVATE else None
        if expires is not None and self._signer is None:
            return CommandFailed(
                code="unavailable", message="nothing of private jobs is served over HTTP: logsink has no link_key"
            )
        attempt = asked.attempt or await self._catalogue.latest_attempt(asked.job)
        if attempt is None:
            return LinksReply(job=asked.job)
        logs = await self._catalogue.logs(asked.job, attempt)
        artifacts = [one for one in await self._catalogue.artifacts(asked.job, attempt) if one.state == "sealed"]
        return LinksReply(
            job=asked.job,
            attempt=attempt,
            logs=tuple(self._log(facts, stream, expires) for stream in logs),
            artifacts=tuple(sorted((self._artifact(facts, one, expires) for one in artifacts), key=lambda a: a.index)),
            expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
        )

    def _log(self, facts: JobFacts, stream: Stream, expires: int | None) -> LogLink:
        path = log_path(facts.job, facts.link, stream.key.attempt, stream.key.label)
        return LogLink(**dict(view(stream)), url=self._url(path, expires))

    def _artifact(self, facts: JobFacts, stream: Stream, expires: int | None) -> ArtifactLink:
        key, end = stream.key, stream.held.end
        assert end is not None and stream.name is not None  # it is a sealed artifact
        path = artifact_path(facts.job, facts.link, key.attempt, int(key.label), stream.name)
        return ArtifactLink(
            attempt=key.attempt, index=int(key.label), name=stream.name, bytes=end.total, sha256=end.sha256,
            url=self._url(path, expires),
        )  # fmt: skip

    def _url(self, path: str, expires: int | None) -> str:
        signed = self._signer.query(path, expires) if expires is not None and self._signer is not None else ""
        return f"{self._logs_url}{path}{signed}"
