"""What logsink is told: where bytes go, where they are served, and the bounds of a log and an artifact."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from leveret_runtime.config import DatabaseConfig

MIB = 1024 * 1024


class LogsinkConfig(DatabaseConfig):
    """The configuration of `leveret-logsink`."""

    SERVICE: ClassVar[str] = "logsink"

    storage: Path = Field(description="directory of logs and artifacts; every logsink of an installation shares it")
    host: str = Field("127.0.0.1", description="address the HTTP server listens on")
    port: int = Field(8080, ge=0, le=65535, description="its port; 0 takes a free one and says which when ready")
    logs_url: str | None = Field(
        None, description="how readers reach the HTTP server, as in http://logs.example.org; None: host and port"
    )
    #: A worker's own limit is 64 MiB; past it come a marker and the log's last MiB.
    log_limit: int = Field(66 * MIB, ge=1, description="bytes of one log")
    artifact_limit: int = Field(1024 * MIB, ge=1, description="bytes of one artifact")
    end_wait: float = Field(
        30.0, gt=0, le=86_400, description="seconds after an attempt's end until a log without its end is a gap"
    )
