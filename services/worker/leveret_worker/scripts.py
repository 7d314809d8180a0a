"""What is put into the guest for a build: `~/.buildenv` and one script per task. Pure text.

Names, order and the meaning of exit status 255 are builds.sr.ht's, so that manifests notice no difference.
"""

import shlex
from collections.abc import Mapping

from leveret_proto.manifest.model import EnvironmentValue

#: The exit status of `complete-build`: the job succeeds, the tasks after it are skipped.
COMPLETE_BUILD = 255

_HEAD = """\
#!/bin/sh
complete-build() {
	exit 255
}
"""


def buildenv(environment: Mapping[str, EnvironmentValue], builtin: Mapping[str, str]) -> str:
    """Give the text of `~/.buildenv`.

    Args:
        environment: the manifest's; lists become bash arrays, booleans `true` and `false`, null an empty text.
        builtin: JOB_ID and its kin; the manifest's values win.
    """
    lines = [_HEAD]
    for name, text in builtin.items():
        if name not in environment:
            lines.append(f"export {name}={shlex.quote(text)}\n")
    for name, value in environment.items():
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
    return f"{preamble.rstrip()}\n{script.rstrip()}\n"
