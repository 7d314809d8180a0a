"""What is asked for and not done yet is said, at its line."""

from leveret_intake.unserved import unserved
from leveret_proto.manifest import read
from leveret_proto.messages import Submission

PLAIN = "image: debian/trixie\ntasks:\n- one: 'true'\n"


def told(text: str, **beside: object) -> list[tuple[str, int]]:
    manifest = read(text).manifest
    assert manifest is not None
    submission = Submission.model_validate({"manifest": text, **beside})
    return [(warning.path, warning.line) for warning in unserved(submission, manifest, text)]


def test_a_plain_submission_earns_no_warning() -> None:
    assert told(PLAIN) == []


def test_keys_of_the_manifest_are_told_with_their_line() -> None:
    text = PLAIN + "secrets:\n- deploy key\noauth: pages.sr.ht/PAGES:RW\nshell: true\n"
    assert told(text) == [("secrets", 4), ("oauth", 6), ("shell", 7)]


def test_what_came_beside_the_manifest_is_told_too() -> None:
    assert told(PLAIN, depends_on=[1], group="g", priority=5) == [("depends_on", 1), ("group", 1), ("priority", 1)]
