"""Submitting several files as a group: what is said when an answer stays out."""

from typing import Any, Self

import pytest

from leveret_client import Client, ClientError, NoAnswer, NotReached
from leveret_client.commands.group import Closing
from leveret_client.commands.submit import Sent, _submitted_as_group
from leveret_client.options import Settings
from leveret_client.output import Output
from leveret_proto.base import Visibility
from leveret_proto.messages import GroupView, SubmissionAccepted


class CutShort(Client):
    """Stands in for a client whose broker takes `files` submissions, and then answers nothing more."""

    def __init__(self, files: int, failure: ClientError) -> None:
        super().__init__("amqp://a:b@127.0.0.1:1/x", "~a")
        self._files = files
        self._failure = failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def submit(self, manifest: str | bytes, **_: Any) -> SubmissionAccepted:
        if not self._files:
            raise self._failure
        self._files -= 1
        return SubmissionAccepted(submission="id", job=7 - self._files, owner="~a")

    async def close_group(self, group: str, **_: Any) -> GroupView:
        raise self._failure


def sent(name: str) -> Sent:
    return Sent(b"", name, "p", None, (), Visibility.UNLISTED, 0, True, (), "nightly", f"id-of-{name}")


@pytest.mark.parametrize(
    "failure", [NotReached("RabbitMQ: gone"), NoAnswer("no answer")], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (0, None),
        (1, "nightly stays open with what was submitted before (jobs 7); submit the rest one by one with --group"),
        (2, "whether group nightly was closed is not known (jobs 6, 7); `leveret group` with --size 2"),
    ],
)
async def test_a_group_that_is_cut_short_says_how_to_go_on(
    failure: ClientError, taken: int, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Given(Settings):
        def client(self) -> Client:
            return CutShort(taken, failure)

    settings = Given("", "~a", Output(as_json=False))
    with pytest.raises(type(failure)):
        await _submitted_as_group(
            settings, [sent("one"), sent("two")], Closing("nightly", (), Visibility.UNLISTED, None)
        )
    errors = " ".join(capsys.readouterr().err.split())
    if said is None:
        assert "nightly" not in errors
    else:
        assert said in errors
    assert ("with --message-id id-of-two it becomes no second job" in errors) is (taken == 1)
