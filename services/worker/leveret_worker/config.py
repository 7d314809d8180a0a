"""The worker's configuration."""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leveret_proto.base import Tag
from leveret_proto.capability import MIB, Capabilities
from leveret_runtime.config import ServiceConfig


def _default_slots() -> int:
    return max(1, (os.cpu_count() or 1) // 2)


class Config(ServiceConfig):
    """What a worker host is told. It holds no database address."""

    SERVICE: ClassVar[str] = "worker"

    name: str = Field(min_length=1, max_length=64, description="the worker's name; the same as its broker account")
    slots: int = Field(
        default_factory=_default_slots,
        ge=1,
        le=256,
        description="jobs run at the same time; default: half of the processors",
    )
    spool: Path = Field(description="directory for grants, logs and results on their way; must survive a restart")
    images: Path | None = Field(None, description="image store; none: the user's cache folder")
    tags: tuple[Tag, ...] = Field((), description="labels such as disk=large that manifests may require")

    executor: Literal["qemu", "process"] = Field("qemu", description="process: no isolation, for tests and development")
    unsandboxed: Literal["refuse", "allow"] = Field("refuse", description="allow: the process executor may be used")
    process_images: tuple[str, ...] = Field(
        ("test/process",), description="image names the process executor pretends to have"
    )
    memory_mib: int = Field(1024, ge=64, description="memory of a guest whose manifest says nothing, in MiB")
    memory_mib_most: int | None = Field(
        None, ge=64, description="the most a manifest may ask for; none: three quarters of the host's, shared by slots"
    )
    cpus: int = Field(1, ge=1, description="virtual processors of a guest whose manifest says nothing")
    cpus_most: int | None = Field(None, ge=1, description="the most a manifest may ask for; none: all of the host's")
    network: Literal["none", "egress", "full"] = Field(
        "egress", description="what a guest reaches: nothing, the public outside, or all that the host reaches"
    )
    isolation: Literal["require", "try"] = Field(
        "require", description="try: where this host can't confine machines as it should, do what it can and say so"
    )
    disk_mib: int = Field(16 * 1024, ge=64, description="the most a guest may write to its disk, in MiB")
    source_mirrors: dict[str, Path] = Field(
        {}, description="URL prefix → directory of bare repositories: such sources need no network in the guest"
    )
    job_url: str = Field("urn:leveret:job:{job}", description="template of JOB_URL: {owner} and {job} are filled in")

    task_time_limit: float | None = Field(
        None, gt=0, description="seconds a task may run whose manifest says nothing; none: as long as its job"
    )
    task_time_limit_most: float | None = Field(None, gt=0, description="the most seconds a manifest may give a task")
    kill_after: float = Field(10.0, gt=0, le=30, description="seconds from a time limit's SIGTERM to its SIGKILL")

    start: Literal["template", "cold"] = Field(
        "template", description="cold: boot every guest, instead of going on from one that was recorded"
    )
    templates: Path | None = Field(None, description="directory of recorded guests; none: in the image store")
    templates_ahead: bool = Field(True, description="record guests of all images before a job asks, not on first use")
    templates_disk_mib: int = Field(8192, ge=0, description="disk that recorded guests may take, in MiB")
    templates_memory_mib: int = Field(512, ge=0, description="memory kept filled with unused recorded guests, in MiB")
    restore_limit: float = Field(15.0, gt=0, description="seconds a guest that was recorded may take to its answer")

    beat_interval: float = Field(10.0, gt=0, description="seconds between beats")
    boot_limit: float = Field(120.0, gt=0, description="seconds a guest may take to its first answer")
    guest_silence_limit: float = Field(
        30.0, gt=0, description="seconds without a sign of life after which a guest counts as lost"
    )
    guest_answer_limit: float = Field(
        60.0, gt=0, description="seconds a guest that gives signs of life may take for any one small request"
    )
    probe_limit: float = Field(10.0, gt=0, description="seconds for the trial boot that proves KVM")
    probe_interval: float = Field(600.0, gt=0, description="seconds after which emulators and KVM are proved again")
    drain_limit: float = Field(3600.0, ge=0, description="seconds running builds get after SIGTERM or a drain")
    backlog_limit: int = Field(
        64 * 1024 * 1024, gt=0, description="unconfirmed bytes of logs and artifacts per job before the guest is slowed"
    )

    kept_logs_seconds: float = Field(
        300.0, ge=0, description="seconds that logs of settled jobs stay in the spool, to be sent again if lost"
    )
    kept_logs_mib: int = Field(512, ge=0, description="the most that those logs may take, in MiB")

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.executor == "process" and self.unsandboxed != "allow":
            raise ValueError(
                "executor 'process' runs manifests on this host without any isolation; "
                "set 'unsandboxed: allow' where that is wanted"
            )
        if self.memory_mib_most is not None and self.memory_mib_most < self.memory_mib:
            raise ValueError(f"memory_mib_most ({self.memory_mib_most}) is less than memory_mib ({self.memory_mib})")
        if self.cpus_most is not None and self.cpus_most < self.cpus:
            raise ValueError(f"cpus_most ({self.cpus_most}) is less than cpus ({self.cpus})")
        return self

    @property
    def allowed(self) -> Capabilities:
        """What a worker offers, whatever it can prove: its labels, and the most that a job may ask for."""
        host_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
        return Capabilities(
            tags=self.tags,
            memory_mib=self.memory_mib_most or max(self.memory_mib, host_mib * 3 // 4 // self.slots),
            cpus=self.cpus_most or max(self.cpus, os.cpu_count() or 1),
        )
