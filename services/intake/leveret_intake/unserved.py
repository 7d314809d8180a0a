"""What a manifest may ask for that this version takes note of but does not do yet: said in a warning, never silently.

Pure. A line leaves this file when the thing is done.
"""

import re

from leveret_proto.manifest import Diagnostic, Manifest

_HINT = "see CHANGELOG.md for what is not there yet"


def unserved(manifest: Manifest, text: str) -> tuple[Diagnostic, ...]:
    """Give a warning for everything in `manifest` (read from `text`) that will have no effect."""
    told: list[Diagnostic] = []
    if manifest.oauth is not None:
        told.append(_warning("oauth", text, "this version gives the guest no OAuth token"))
    if manifest.shell:
        told.append(_warning("shell", text, "this version keeps no guest open for a login"))
    return tuple(told)


def _warning(key: str, text: str, message: str) -> Diagnostic:
    """`text`: the manifest that `key` stands in."""
    before = re.split(rf"^{key}\s*:", text, maxsplit=1, flags=re.MULTILINE)[0]
    line = before.count("\n") + 1 if len(before) < len(text) else 1
    return Diagnostic(severity="warning", path=key, line=line, column=1, message=message, hint=_HINT)
