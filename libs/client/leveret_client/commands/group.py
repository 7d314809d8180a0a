"""`leveret group`: say how many jobs a group has, and who is told when all of them have ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.options import Settings, broker_options
from leveret_client.output import STYLES, Output
from leveret_client.running import run
from leveret_client.text import one_line
from leveret_proto.base import Visibility
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.model import CONDITIONS, Condition
from leveret_proto.messages import GroupView
from leveret_proto.words import WordError, escape

#: Jobs a group may have.
MOST = 512


@dataclass(frozen=True)
class Closing:
    """What is said of a group besides its size."""

    group: str
    triggers: tuple[Trigger, ...]
    visibility: Visibility
    note: str | None

    async def by(self, client: Client, size: int) -> GroupView:
        """Close the group. Raises CommandRefused."""
        return await client.close_group(
            self.group, size=size, triggers=self.triggers, visibility=self.visibility, note=self.note
        )


def word(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Check a group's name, for click."""
    try:
        if name is not None:
            escape(name)
    except WordError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    return name


def trigger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--email`, `--webhook` and `--when`; the command gets `triggers`, those of the group."""

    def with_triggers(emails: tuple[str, ...], webhooks: tuple[str, ...], when: Condition, **others: Any) -> Any:
        mails = [Trigger(action="email", condition=when, to=address) for address in emails]
        posts = [Trigger(action="webhook", condition=when, url=url) for url in webhooks]
        return command(triggers=(*mails, *posts), **others)

    with_triggers.__name__ = command.__name__
    with_triggers.__doc__ = command.__doc__
    with_triggers.__dict__.update(command.__dict__)  # click keeps a command's options there
    wrapped = click.option(
        "--when",
        type=click.Choice(CONDITIONS),
        default="always",
        show_default=True,
        help="The end of the group that --email and --webhook tell of.",
    )(with_triggers)
    wrapped = click.option("--webhook", "webhooks", multiple=True, help="Where to post the group's end.")(wrapped)
    return click.option("--email", "emails", multiple=True, help="Whom to mail the group's end.")(wrapped)


@click.command()
@click.argument("name", callback=word)
@click.option("--size", type=click.IntRange(1, MOST), required=True, help="How many jobs the group has.")
@trigger_options
@click.option("--note", help="A line for people, in the mail and the event.")
@click.option(
    "--visibility",
    type=click.Choice([str(kind) for kind in Visibility]),
    default=str(Visibility.UNLISTED),
    show_default=True,
    help="Who may see the group's event.",
)
@broker_options
def group(
    settings: Settings, name: str, size: int, triggers: tuple[Trigger, ...], note: str | None, visibility: str
) -> None:
    """Close the group NAME: it ends when SIZE jobs that were submitted with --group NAME have ended.

    The same words again change nothing, and show how the group stands. A name is good for one group.
    """
    closing = Closing(name, triggers, Visibility(visibility), note)

    async def work() -> int:
        async with settings.client() as client:
            show_group(settings.output, await closing.by(client, size))
        return exits.OK

    run(work)


def show_group(output: Output, view: GroupView) -> None:
    """Show how a group stands."""
    if output.as_json:
        output.document("group", view)
        return
    size = "" if view.size is None else f" of {view.size} jobs"
    output.line((f"group {one_line(view.group)}", "bold"), size, "  ", (view.state, STYLES.get(view.state, "")))
    for member in view.jobs:
        output.line(("  job         ", "dim"), f"{member.job}  ", (member.status, STYLES[member.status]))
