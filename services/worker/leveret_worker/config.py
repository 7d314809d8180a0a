"""The worker's configuration."""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leveret_proto.base import Tag
from leveret_runtime.config import ServiceConfig


def _default_slots() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


class Config(ServiceConfig):
    """What a worker host is told. It holds no database address."""

    SERVICE: ClassVar[str] = "worker"

    name: str = Field(min_length=1, max_length=64, description="the worker's name; the same as its broker account")
    slots: int = Field(default_factory=_default_slots, ge=1, le=256, description="jobs run at the same time")
    spool: Path = Field(description="directory for grants, logs and results on their way; must survive a restart")
    images: Path | None = Field(None, description="image store; none: the user's cache folder")
    tags: tuple[Tag, ...] = Field((), description="labels such as disk=large that manifests may require")

    executor: Literal["qemu", "process"] = Field("qemu", description="process: no isolation, for tests and development")
    unsandboxed: Literal["refuse", "allow"] = Field("refuse", description="allow: the process executor may be used")
    process_images: tuple[str, ...] = Field(
        ("test/process",), description="image names the process executor pretends to have"
    )
    memory_mib: int = Field(1024, ge=64, description="memory of each guest, in MiB")
    cpus: int = Field(1, ge=1, description="virtual processors of each guest")
    network: Literal["none", "egress"] = Field("none", description="what a guest reaches: nothing, or the outside")
    source_mirrors: dict[str, Path] = Field(
        {}, description="URL prefix → directory of bare repositories: such sources need no network in the guest"
    )
    job_url: str = Field("urn:leveret:job:{job}", description="template of JOB_URL: {owner} and {job} are filled in")

    beat_interval: float = Field(10.0, gt=0, description="seconds between beats")
    boot_limit: float = Field(120.0, gt=0, description="seconds a guest may take to its first answer")
    probe_limit: float = Field(10.0, gt=0, description="seconds for the trial boot that proves KVM")
    probe_interval: float = Field(600.0, gt=0, description="seconds after which emulators and KVM are proved again")
    drain_limit: float = Field(3600.0, ge=0, description="seconds running builds get after SIGTERM, then handed back")
    backlog_limit: int = Field(
        64 * 1024 * 1024, gt=0, description="bytes of unconfirmed log per task before the guest is slowed"
    )

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.executor == "process" and self.unsandboxed != "allow":
            raise ValueError(
                "executor 'process' runs manifests on this host without any isolation; "
                "set 'unsandboxed: allow' where that is wanted"
            )
        return self
