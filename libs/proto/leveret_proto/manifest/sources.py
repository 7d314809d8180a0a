"""Sources: which version control fetches what, at which ref, into which directory.

The rules are those of builds.sr.ht's worker (`CloneRepos` in `worker/tasks.go`, 2023).
"""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

_SCM_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)\+([A-Za-z][A-Za-z0-9.-]*://)")
#: Version control systems the worker can fetch with.
KNOWN_SCM = ("git", "hg")


class Source(BaseModel):
    """One entry of `sources`. Its JSON form is the text as written in the manifest.

    Attributes:
        text: as written, such as `lib::hg+https://hg.sr.ht/~user/project#v1`.
        scm: `git` or `hg`; any other word earned a warning and can't be fetched.
        url: what the version control system is given, without directory, ref and `scm+`.
        ref: what to check out after cloning, or None for the default.
        directory: where the clone lies, relative to the home directory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    scm: str
    url: str
    ref: str | None
    directory: str

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Take a source's text apart. Any text has a reading; `doubts` says which will not work."""
        return cls.model_validate(text)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _take_apart(value) if isinstance(value, str) else value

    @model_serializer(mode="plain")
    def _to_text(self) -> str:
        return self.text


def _take_apart(text: str) -> dict[str, str | None]:
    location, ref = _split_once(text, "#")
    # Base name before the directory is cut off, as the original does: `::/x` and `dir::` stay what they are there.
    name = base_name(location)
    directory, url = _split_once(location, "::")
    explicit = url is not None
    if url is None:
        url = location
    elif directory:
        name = directory
    scm = "git"
    if match := _SCM_SCHEME.match(url):
        scm, url = match[1], match[2] + url[match.end() :]
    if scm == "git" and not explicit:
        name = name.removesuffix(".git")
    return {"text": text, "scm": scm, "url": url, "ref": ref or None, "directory": name}


def _split_once(text: str, separator: str) -> tuple[str, str | None]:
    """Split at the only `separator`; with none or several the original does not split at all."""
    parts = text.split(separator)
    return (parts[0], parts[1]) if len(parts) == 2 else (text, None)


def base_name(path: str) -> str:
    """Give the last element of a slash-separated path the way Go's `path.Base` does."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def doubts(source: Source) -> str:
    """Say why fetching `source` will fail, as it would on builds.sr.ht; empty if nothing speaks against it."""
    if source.text.count("#") > 1:
        return "more than one '#': nothing is taken as the ref, and the whole text as the address"
    if source.text.count("::") > 1:
        return "more than one '::': nothing is taken as the directory, and the whole text as the address"
    if source.scm not in KNOWN_SCM:
        return f"unknown version control '{source.scm}'; git and hg are known"
    if not source.url:
        return "there is no address"
    if re.search(r"\s", source.text):
        return "an address holds no white space"
    return ""
