"""What the dispatcher is told: its database, its clocks, and the limits every attempt runs under."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from leveret_dispatcher.keyring import Keyring
from leveret_runtime.config import DatabaseConfig

#: The name in `app_id`, in failpoints and as the `source` of events.
APP = "dispatcher"
MIB = 1024 * 1024


class OwnerPolicy(BaseModel):
    """What holds for one owner; what is left out is the installation's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    running: int | None = Field(None, ge=0, description="the most jobs granted or running at once; null: no limit")
    time_limit: float | None = Field(None, ge=1, description="how long a job may run whose manifest says nothing")
    time_limit_most: float | None = Field(
        None, ge=1, description="the most a manifest may ask for, up to the installation's"
    )


class Config(DatabaseConfig):
    """The dispatcher's configuration. Times in seconds."""

    SERVICE: ClassVar[str] = APP

    logs_url: str = Field("http://127.0.0.1:8080", description="where logsink serves, as links in events begin")
    time_limit: float = Field(2700, ge=1, description="how long a job may run whose manifest says nothing")
    time_limit_most: float = Field(6 * 3600, ge=1, description="the most a manifest may ask for")
    overrun: float = Field(60, gt=0, description="past its limit, a job that its worker did not end is ended here")
    log_limit: int = Field(64 * MIB, ge=1024, description="bytes of a task's log, past which only the last MiB is kept")
    job_log_limit: int = Field(64 * MIB, ge=1024, description="the same for all logs of a job together")
    artifact_limit: int = Field(1024 * MIB, ge=1024, description="bytes an artifact may have")
    queue_deadline: float = Field(
        7 * 24 * 3600, gt=0, description="how long a job may wait for its first attempt whose manifest says nothing"
    )
    owner_running: int | None = Field(
        None, ge=0, description="the most jobs of one owner granted or running at once; none: no limit"
    )
    owners: dict[str, OwnerPolicy] = Field({}, description="what holds for single owners, as ~user")
    lease: float = Field(30, gt=0, description="a worker that is not heard for so long has lost its attempts")
    canary: float = Field(1, gt=0, description="how often the path through the broker is tried")
    leader_renew: float = Field(5, gt=0, description="how often the leader renews its row")
    leader_stale: float = Field(15, gt=0, description="a leader not renewed for so long may be replaced")
    standby_look: float = Field(0.5, gt=0, description="how often a standby looks whether it may lead")
    # A frozen leader goes on being sent its share of every queue until the broker gives its connection up, so this must
    # not take much longer than its row to go stale.
    heartbeat: int = Field(5, ge=1, description="AMQP heartbeat")
    quarantine_after: int = Field(
        5, ge=1, description="infrastructure faults in a row after which a worker is given no more jobs"
    )
    dead_most: int = Field(10_000, ge=1, description="dead letters kept; the oldest go first")
    dead_bytes_most: int = Field(256 * MIB, ge=MIB, description="bytes that the dead letters kept may take together")
    cancellations_most: int = Field(1000, ge=1, description="cancels before arrival remembered for one owner")
    secrets_key: SecretStr | None = Field(
        None, description="locks secrets away: base64 of 32 random bytes, kept for good; none: there are no secrets"
    )
    secrets_most: int = Field(100, ge=1, description="secrets one owner may have")

    @field_validator("secrets_key")
    @classmethod
    def _check_secrets_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            Keyring(value.get_secret_value())
        return value

    def running_limit(self, owner: str) -> int | None:
        """Give the most jobs that `owner` may have granted or running; None: no limit."""
        policy = self.owners.get(owner)
        if policy is not None and "running" in policy.model_fields_set:
            return policy.running
        return self.owner_running

    def owner_time_limit(self, owner: str, asked: float | None) -> float:
        """Give the seconds an attempt may run for which `owner` asked so many, or none."""
        policy = self.owners.get(owner, OwnerPolicy())
        limit = asked or policy.time_limit or self.time_limit
        return min(limit, policy.time_limit_most or self.time_limit_most, self.time_limit_most)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.leader_stale <= self.leader_renew:
            raise ValueError("leader_stale must be longer than leader_renew, or every leader would be replaced")
        if self.lease < 3 * self.canary:
            raise ValueError("lease must be at least three times canary, whose return is what moves its clock")
        return self
