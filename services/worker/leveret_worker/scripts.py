"""What is put into the guest for a build: `~/.buildenv` and one script per task. Pure text.

Names, content and order are builds.sr.ht's, so that manifests notice no difference.
"""

import re
import shlex
from collections.abc import Mapping

from leveret_proto.manifest.model import EnvironmentValue

#: What `complete-build` leaves in the home directory, and the content that counts.
COMPLETE_BUILD = ".complete-build"
MARK = b"1"

_HEAD = f"""\
#!/bin/sh
complete-build() {{
	echo {MARK.decode()} > ~/{COMPLETE_BUILD}
	exit 0
}}
"""

#: A name that bash can export; others would only stop it.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def buildenv(environment: Mapping[str, EnvironmentValue], builtin: Mapping[str, str]) -> str:
    """Give the text of `~/.buildenv`.

    Args:
        environment: the manifest's; lists become bash arrays, booleans `true` and `false`, null an empty text.
        builtin: JOB_ID and its kin, which win.
    """
    lines = [_HEAD]
    for name, value in {**environment, **builtin}.items():
        if not _NAME.fullmatch(name):
            continue
        if isinstance(value, tuple):
            lines.append(f"{name}=({' '.join(shlex.quote(item) for item in value)})\n")
        else:
            lines.append(f"export {name}={shlex.quote(_scalar(value))}\n")
    return "".join(lines)


def _scalar(value: bool | int | float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def task_script(preamble: str, script: str) -> str:
    """Give a task's script: the image's preamble, then the manifest's lines."""
    return f"{preamble.rstrip()}\n{script}\n"
