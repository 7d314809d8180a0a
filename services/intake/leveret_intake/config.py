"""Intake's configuration: environment `LEVERET_INTAKE_<KEY>`, credentials, or the YAML file."""

from typing import ClassVar

from pydantic import Field

from leveret_intake.synonyms import image_synonyms
from leveret_proto.manifest import Limits
from leveret_proto.manifest.limits import DEFAULT_ARTIFACTS, DEFAULT_SIZE
from leveret_runtime.config import DatabaseConfig


class Config(DatabaseConfig):
    """What intake is told."""

    SERVICE: ClassVar[str] = "intake"

    manifest_size: int = Field(DEFAULT_SIZE, ge=256, le=1024 * 1024, description="most bytes a manifest may have")
    artifacts: int = Field(DEFAULT_ARTIFACTS, ge=0, le=512, description="most artifacts of one job")
    image_synonyms: dict[str, str] = Field(
        default_factory=image_synonyms,
        description="image name: the image it stands for; default: as deploy/images has it",
    )
    default_arch: str = Field("x86_64", description="architecture of a manifest that names none")

    @property
    def limits(self) -> Limits:
        """What the manifest reader goes by."""
        return Limits(size=self.manifest_size, artifacts=self.artifacts, image_synonyms=self.image_synonyms)
