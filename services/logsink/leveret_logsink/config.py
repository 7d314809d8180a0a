"""What logsink is told: where bytes go, where they are served, and the bounds of a log and an artifact."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, field_validator

from leveret_logsink.signing import Signer
from leveret_runtime.config import DatabaseConfig

MIB = 1024 * 1024


class LogsinkConfig(DatabaseConfig):
    """The configuration of `leveret-logsink`."""

    SERVICE: ClassVar[str] = "logsink"

    storage: Path = Field(description="directory of logs and artifacts; every logsink of an installation shares it")
    host: str = Field("127.0.0.1", description="address the HTTP server listens on")
    port: int = Field(8080, ge=0, le=65535, description="its port; 0 takes a free one and says which when ready")
    logs_url: str | None = Field(
        None, description="how readers reach the HTTP server, as in http://logs.example.org; none: host and port"
    )
    log_limit: int = Field(
        66 * MIB, ge=1, description="bytes of one log; 2 MiB over the dispatcher's: past that come a log's last bytes"
    )
    artifact_limit: int = Field(1024 * MIB, ge=1, description="bytes of one artifact")
    resend_after: float = Field(
        3.0, gt=0, le=3600, description="seconds without a new chunk after which a log with holes is asked for again"
    )
    end_wait: float = Field(
        30.0, gt=0, le=86_400, description="seconds after an attempt's end until a log without its end is a gap"
    )
    keep_days: float | None = Field(
        None, gt=0, description="days after a job's end until its logs and artifacts are removed; none: never"
    )
    keep_days_of: dict[str, Annotated[float, Field(gt=0)] | None] = Field(
        {}, description="the same for single owners, as ~user"
    )
    free_floor: int = Field(
        512 * MIB, ge=1, description="bytes free in `storage` below which nothing is taken until there is room again"
    )
    link_key: SecretStr | None = Field(
        None, description="signs links to private jobs: base64 of 32 random bytes; none: private jobs are not served"
    )
    live_readers: int = Field(500, ge=1, le=100_000, description="most live readers over HTTP; a job has a quarter")
    live_stall: float = Field(
        30.0, gt=0, le=3600, description="seconds that a live reader may take for an event before it is dropped"
    )

    @field_validator("link_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            Signer(value.get_secret_value())
        return value

    @property
    def signer(self) -> Signer | None:
        """What signs links to private jobs."""
        return None if self.link_key is None else Signer(self.link_key.get_secret_value())
