"""The bounds and choices of one installation: data, so that the rules are the same everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: builds.sr.ht's limit for the text of a manifest, in bytes.
DEFAULT_SIZE = 16 * 1024
#: builds.sr.ht takes this many artifacts; of a longer list it uploads none.
DEFAULT_ARTIFACTS = 8


@dataclass(frozen=True)
class Limits:
    """What one installation takes.

    Attributes:
        size: most bytes a manifest's text may have.
        nesting: most levels of lists and mappings, aliases followed.
        nodes: most values a manifest may hold once every alias is followed (what stops alias bombs).
        diagnostics: most diagnostics of one reading.
        artifacts: most artifacts kept; further ones earn a warning.
        image_synonyms: image name → the name it stands for, as `{"debian/stable": "debian/trixie"}`.
        known_images: images that some worker offers or offered, by canonical name. None: unknown, so nothing is said.
        known_arches: the same for architectures.
        unknown: whether an image or arch nobody has ever offered is taken with a warning, or rejected.
    """

    size: int = DEFAULT_SIZE
    nesting: int = 64
    nodes: int = 100_000
    diagnostics: int = 100
    artifacts: int = DEFAULT_ARTIFACTS
    image_synonyms: Mapping[str, str] = field(default_factory=dict)
    known_images: frozenset[str] | None = None
    known_arches: frozenset[str] | None = None
    unknown: Literal["warn", "reject"] = "warn"


DEFAULT_LIMITS = Limits()
