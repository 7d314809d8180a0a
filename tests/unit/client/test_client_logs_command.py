"""What `leveret logs`, `links` and `artifacts` are told wrongly is said before anything is asked of a broker."""

import pytest
from click.testing import CliRunner

from leveret_client import exits
from leveret_client.main import main
from leveret_client.times import parse_span

NOWHERE = ("--amqp", "amqp://a:b@127.0.0.1:1/x", "--owner", "~a")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("logs", "1", "--last", "much"), "expected a number of bytes"),
        (("logs", "1", "--follow", "--attempt", "1"), "leave --attempt out"),
        (("logs", "1", "--attempt", "0"), "--attempt"),
        (("links", "1", "--for", "2w"), "from 1s to 1w"),
        (("links", "1", "--for", "0s"), "from 1s to 1w"),
        (("links", "1", "--for", "soon"), "is no span of time"),
        (("artifacts", "0"), "JOB"),
    ],
)
def test_wrong_arguments_are_told(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(main, [*arguments, *NOWHERE])
    assert (result.exit_code, told in result.stderr) == (exits.USAGE, True), result.stderr


def test_spans_of_time() -> None:
    assert [parse_span(text) for text in ("90s", "15m", "2h", "3d", "1w")] == [90, 900, 7200, 259_200, 604_800]
    assert parse_span("999999999w") > 7 * 86_400
