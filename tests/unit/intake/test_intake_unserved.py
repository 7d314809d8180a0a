"""What is asked for and not done yet is said, at its line."""

from leveret_intake.unserved import unserved
from leveret_proto.manifest import read

PLAIN = "image: debian/trixie\ntasks:\n- one: 'true'\n"


def told(text: str) -> list[tuple[str, int]]:
    manifest = read(text).manifest
    assert manifest is not None
    return [(warning.path, warning.line) for warning in unserved(manifest, text)]


def test_a_plain_submission_earns_no_warning() -> None:
    assert told(PLAIN) == []


def test_keys_of_the_manifest_are_told_with_their_line() -> None:
    text = PLAIN + "secrets:\n- deploy key\noauth: pages.sr.ht/PAGES:RW\nshell: true\n"
    assert told(text) == [("oauth", 6), ("shell", 7)]
