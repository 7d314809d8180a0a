"""Build manifests: read, judged, and explained. Pure: text in; a manifest or a list of diagnostics out.

`read` is the one way in, shared by intake and `leveret validate`. The rules are those of builds.sr.ht's own parsers
(2023); where these differ, its API parser decides. `docs/manifest.md` is the manual.
"""

from leveret_proto.manifest.diagnostics import Diagnostic, Severity
from leveret_proto.manifest.json_schema import schema
from leveret_proto.manifest.limits import DEFAULT_LIMITS, Limits
from leveret_proto.manifest.model import Extension, Manifest, Requires, Task, Trigger
from leveret_proto.manifest.reader import Reading, read
from leveret_proto.manifest.render import render
from leveret_proto.manifest.sources import Source

__all__ = [
    "DEFAULT_LIMITS",
    "Diagnostic",
    "Extension",
    "Limits",
    "Manifest",
    "Reading",
    "Requires",
    "Severity",
    "Source",
    "Task",
    "Trigger",
    "read",
    "render",
    "schema",
]
