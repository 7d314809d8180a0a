"""The options that several subcommands share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from leveret_client import endpoint
from leveret_client.client import Client
from leveret_client.output import Output


@dataclass(frozen=True)
class Settings:
    """How to reach the broker, for whom, and how to show things."""

    amqp_url: str
    owner: str
    output: Output

    def client(self) -> Client:
        return Client(self.amqp_url, self.owner)


T = TypeVar("T")


def read_by(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """Give an option's callback that reads its text by `parse`, which raises ValueError."""

    def callback(_: click.Context, option: click.Parameter, text: str | None) -> T | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), param=option) from None

    return callback


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for programs.")(command)


def broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--amqp`, `--owner` and `--json`; the command gets `settings`."""

    def with_settings(amqp: str | None, owner: str | None, as_json: bool, **others: Any) -> Any:
        return command(settings=_settings(amqp, owner, as_json), **others)

    with_settings.__name__ = command.__name__
    with_settings.__doc__ = command.__doc__
    with_settings.__dict__.update(command.__dict__)  # click keeps a command's options there
    wrapped = json_option(with_settings)
    wrapped = click.option("--owner", envvar="LEVERET_OWNER", help="On whose behalf. [env: LEVERET_OWNER]")(wrapped)
    return click.option(
        "--amqp",
        envvar="LEVERET_AMQP_URL",
        help="The broker: amqp://user:password@host:port/vhost. Default: that of a running `leveret up`. "
        "[env: LEVERET_AMQP_URL]",
    )(wrapped)


def _settings(amqp: str | None, owner: str | None, as_json: bool) -> Settings:
    running = endpoint.find() if amqp is None or owner is None else None
    # the owner of a local stack means nothing at another broker
    if amqp is None and running is not None:
        amqp, owner = running.amqp_url, owner or running.owner
    elif running is not None and amqp == running.amqp_url:
        owner = owner or running.owner
    if amqp is None:
        raise click.UsageError("which broker? Give --amqp or LEVERET_AMQP_URL, or start one with `leveret up`.")
    if not owner:
        raise click.UsageError("on whose behalf? Give --owner or LEVERET_OWNER.")
    if not amqp.startswith(("amqp://", "amqps://")):
        raise click.UsageError("--amqp: expected amqp://user:password@host:port/vhost, or amqps for TLS.")
    return Settings(amqp, owner, Output(as_json=as_json))
