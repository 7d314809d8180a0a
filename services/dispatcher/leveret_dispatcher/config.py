"""What the dispatcher is told: its database, its clocks, and the limits every attempt runs under."""

from typing import ClassVar

from pydantic import Field, model_validator

from leveret_runtime.config import DatabaseConfig

#: The name in `app_id`, in failpoints and as the `source` of events.
APP = "dispatcher"
MIB = 1024 * 1024


class Config(DatabaseConfig):
    """The dispatcher's configuration. Times in seconds."""

    SERVICE: ClassVar[str] = APP

    logs_url: str = Field("http://127.0.0.1:8080", description="where logsink serves, as links in events begin")
    time_limit: float = Field(2700, ge=1, description="how long a job may run whose manifest says nothing")
    time_limit_most: float = Field(6 * 3600, ge=1, description="the most a manifest may ask for")
    overrun: float = Field(60, gt=0, description="past its limit, a job that its worker did not end is ended here")
    log_limit: int = Field(64 * MIB, ge=1024, description="bytes of log kept of each task")
    artifact_limit: int = Field(1024 * MIB, ge=1024, description="bytes an artifact may have")
    lease: float = Field(30, gt=0, description="a worker that is not heard for so long has lost its attempts")
    canary: float = Field(1, gt=0, description="how often the path through the broker is tried")
    leader_renew: float = Field(5, gt=0, description="how often the leader renews its row")
    leader_stale: float = Field(15, gt=0, description="a leader not renewed for so long may be replaced")
    standby_look: float = Field(0.5, gt=0, description="how often a standby looks whether it may lead")
    # A frozen leader goes on being sent its share of every queue until the broker gives its connection up, so this must
    # not take much longer than its row to go stale.
    heartbeat: int = Field(5, ge=1, description="AMQP heartbeat")
    dead_most: int = Field(10_000, ge=1, description="dead letters kept; the oldest go first")
    cancellations_most: int = Field(1000, ge=1, description="cancels before arrival remembered for one owner")

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.leader_stale <= self.leader_renew:
            raise ValueError("leader_stale must be longer than leader_renew, or every leader would be replaced")
        if self.lease < 3 * self.canary:
            raise ValueError("lease must be at least three times canary, whose return is what moves its clock")
        return self
