"""The manifest as the rest of Leveret sees it. Its JSON form has the shape of the YAML that people write.

So `Manifest.model_validate(yaml.safe_load(...))`, the messages that carry a manifest, `to_yaml` and the JSON Schema for
editors all speak of one form: tasks are one-key maps, sources are texts. Values are canonical: synonyms of images and
architectures are resolved, null is gone.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_serializer,
    model_validator,
)

from leveret_proto.manifest.dump import dump
from leveret_proto.manifest.sources import Source

TASK_NAME = re.compile(r"[a-z0-9_-]{1,128}")
#: A label such as `disk=large` that a worker must carry.
TAG = re.compile(r"[!-~]{1,128}")
#: Bound of the times under `leveret:`, in seconds: a week.
MAX_TIME_LIMIT = 7 * 24 * 3600
#: Bounds of `leveret.memory`, in bytes, which is a whole number of MIB.
MIB = 1024 * 1024
MIN_MEMORY = 64 * MIB
MAX_MEMORY = 1024 * 1024 * MIB
#: Bound of `leveret.cpus`.
MAX_CPUS = 256

Condition = Literal["success", "failure", "always"]
CONDITIONS: tuple[Condition, ...] = ("success", "failure", "always")
Action = Literal["email", "webhook"]
ACTIONS: tuple[Action, ...] = ("email", "webhook")
ArtifactsOn = Literal["success", "always"]
ARTIFACTS_ON: tuple[ArtifactsOn, ...] = ("success", "always")

#: What an environment variable may hold; a list becomes a bash array.
EnvironmentValue = None | StrictBool | StrictInt | StrictFloat | StrictStr | tuple[StrictStr, ...]
SecretName = Annotated[str, Field(description="UUID or name of a secret, 4 to 511 bytes")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Task(_Part):
    """One task: a name, unique in its manifest, and a bash script, which may be empty. JSON form: `{name: script}`."""

    name: str = Field(pattern=rf"^{TASK_NAME.pattern}$")
    script: str

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            ((name, script),) = value.items()
            return {"name": name, "script": script}
        # A task may itself be called `name`: {"name": script} is then a pair, {"name": ..., "script": ...} is not.
        if isinstance(value, dict) and set(value) == {"name"}:
            return {"name": "name", "script": value["name"]}
        return value

    @model_serializer(mode="plain")
    def _to_pair(self) -> dict[str, str]:
        return {self.name: self.script}


class Trigger(_Part):
    """What to do when the job has ended. `to` and `cc` are address lists (see `addresses`); `url` is the webhook's."""

    action: Action
    condition: Condition
    to: str | None = Field(None, description="address list: a@b, Name <a@b>, ~user/list@lists.example.org")
    cc: str | None = Field(None, description="address list; a mail with cc alone is sent, too")
    in_reply_to: str | None = Field(None, description="Message-ID the mail answers")
    url: str | None = Field(None, description="where the webhook posts to")


class Requires(_Part):
    """What a worker must have beyond the image: hardware virtualisation, labels."""

    kvm: bool = Field(False, description="run under KVM only")
    tags: tuple[str, ...] = Field((), description="labels the worker must carry, as disk=large")


class Extension(_Part):
    """Leveret's own key, `leveret:`. builds.sr.ht ignores it."""

    requires: Requires = Requires()
    time_limit: int | None = Field(
        None, ge=1, le=MAX_TIME_LIMIT, description="seconds the job may run, or a text as 90m, 1h30m"
    )
    task_time_limit: int | None = Field(
        None, ge=1, le=MAX_TIME_LIMIT, description="seconds each task may run, or a text as 10m"
    )
    memory: int | None = Field(
        None,
        ge=MIN_MEMORY,
        le=MAX_MEMORY,
        multiple_of=MIB,
        description="bytes of memory of the machine, or a text as 512MiB, 2GiB",
    )
    cpus: int | None = Field(None, ge=1, le=MAX_CPUS, description="virtual processors of the machine")
    queue_deadline: int | None = Field(
        None, ge=1, le=MAX_TIME_LIMIT, description="seconds the job may wait for a worker, or a text as 2h"
    )
    artifacts_on: ArtifactsOn = Field("success", description="when artifacts are kept")


class Manifest(_Part):
    """A build manifest that has passed every rule."""

    image: str = Field(min_length=1, description="image to boot, as alpine/edge or debian/stable")
    arch: str | None = Field(None, description="architecture, as x86_64 (also amd64), aarch64 (arm64), ppc64le")
    packages: tuple[str, ...] = Field((), description="packages to install")
    repositories: dict[str, str] = Field({}, description="package repositories to add: name to source")
    sources: tuple[Source, ...] = Field((), description="repositories to clone: [dir::][scm+]url[#ref]")
    environment: dict[str, EnvironmentValue] = Field({}, description="variables of every task; lists are bash arrays")
    secrets: tuple[SecretName, ...] = Field((), description="secrets to put into the guest")
    tasks: tuple[Task, ...] = Field((), description="scripts to run in order, each a one-key map of name to script")
    triggers: tuple[Trigger, ...] = Field((), description="mails and webhooks when the job has ended")
    artifacts: tuple[str, ...] = Field((), description="files to keep, by path from the home directory")
    shell: bool = Field(False, description="keep the guest for a login after the tasks")
    oauth: str | None = Field(None, description="grants of the OAuth token the guest gets")
    submitter: JsonValue = Field(None, description="git.sr.ht's settings; kept, not read")
    leveret: Extension = Field(Extension(), description="Leveret's own settings")

    def to_yaml(self) -> str:
        """Give YAML text that reads back as this same manifest."""
        return dump(self.model_dump(mode="json", exclude_defaults=True))
