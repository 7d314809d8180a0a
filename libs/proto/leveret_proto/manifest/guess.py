"""Guesses: the known name somebody may have meant."""

from collections.abc import Collection
from difflib import get_close_matches

#: Keys of other systems, and short forms, that people write in manifests.
_ALIASES = {
    "env": "environment",
    "environ": "environment",
    "envs": "environment",
    "variables": "environment",
    "vars": "environment",
    "script": "tasks",
    "scripts": "tasks",
    "steps": "tasks",
    "jobs": "tasks",
    "stages": "tasks",
    "repos": "repositories",
    "architecture": "arch",
    "platform": "arch",
    "os": "image",
    "distro": "image",
    "artefacts": "artifacts",
    "deps": "packages",
    "dependencies": "packages",
    "notify": "triggers",
    "notifications": "triggers",
    "when": "condition",
    "on": "condition",
    "type": "action",
    "timeout": "time_limit",
    "reply_to": "in_reply_to",
}
#: Longer words are not compared: the comparison takes the product of the lengths.
_MAX_WORD = 64


def closest(word: str, known: Collection[str], most: int = 1) -> list[str]:
    """Give the names of `known` that `word` may stand for, the likeliest first; often none."""
    if len(word) > _MAX_WORD:
        return []
    folded = word.lower().replace("-", "_")
    if folded in known:
        return [folded]
    if (alias := _ALIASES.get(folded)) in known and alias is not None:
        return [alias]
    return get_close_matches(folded, sorted(known), n=most, cutoff=0.6)


def closest_images(image: str, known: Collection[str], most: int = 3) -> list[str]:
    """Give the known images nearest to `image`: other releases of the same system first."""
    if len(image) > _MAX_WORD:
        return []
    system = image.partition("/")[0]
    same = sorted(name for name in known if name.partition("/")[0] == system)
    close = get_close_matches(image, sorted(known), n=most, cutoff=0.5)
    return list(dict.fromkeys([*get_close_matches(image, same, n=most, cutoff=0.0), *close]))[:most]


def did_you_mean(names: list[str]) -> str:
    """Give the hint for `names`, or an empty text for none."""
    return f"did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
