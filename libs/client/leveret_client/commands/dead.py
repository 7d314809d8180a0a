"""`leveret dead`: the dead-letter desk, for operators' accounts."""

import base64
from collections.abc import Awaitable, Callable

import click
from rich.table import Table
from rich.text import Text

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.options import Settings, broker_options
from leveret_client.output import Output, size
from leveret_client.running import run
from leveret_client.text import one_line, safe
from leveret_proto.messages import DeadDoneReply, DeadLetterView, DeadListReply, DeadRefusal, DeadReply

LETTER = click.IntRange(min=1, max=2**63 - 1)
#: Letters dealt with by one command.
BATCH = 500


@click.group()
def dead() -> None:
    """Look after messages that could not be read or delivered. Needs an operator's account."""


@dead.command(name="list")
@click.option("--queue", help="Only those that died in this queue.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--before", type=LETTER, help="Only letters with smaller numbers.")
@broker_options
def list_letters(settings: Settings, queue: str | None, limit: int, before: int | None) -> None:
    """List dead letters, newest first."""

    async def work() -> int:
        async with settings.client() as client:
            reply = await client.dead_letters(before=before, limit=limit, queue=queue)
        _show_list(settings.output, reply)
        return exits.OK

    run(work)


@dead.command()
@click.argument("letter", type=LETTER)
@click.option("--body", is_flag=True, help="Print the bytes of its body and nothing else.")
@broker_options
def show(settings: Settings, letter: int, body: bool) -> None:
    """Show LETTER: why and where it died, its history, its body."""

    async def work() -> int:
        async with settings.client() as client:
            reply = await client.dead_letter(letter)
        if body:
            click.echo(base64.b64decode(reply.body), nl=False)
        elif settings.output.as_json:
            settings.output.document(reply.TYPE, reply)
        else:
            _show_letter(settings.output, reply)
        return exits.OK

    run(work)


@dead.command()
@click.argument("letters", type=LETTER, nargs=-1, required=True, metavar="LETTER...")
@broker_options
def retry(settings: Settings, letters: tuple[int, ...]) -> None:
    """Publish LETTERs again as they came; those that the broker takes leave the desk."""
    run(lambda: _all(settings, letters, Client.retry_dead, "published again"))


@dead.command()
@click.argument("letters", type=LETTER, nargs=-1, required=True, metavar="LETTER...")
@broker_options
def drop(settings: Settings, letters: tuple[int, ...]) -> None:
    """Forget LETTERs."""
    run(lambda: _all(settings, letters, Client.drop_dead, "dropped"))


async def _all(
    settings: Settings,
    letters: tuple[int, ...],
    do: Callable[[Client, tuple[int, ...]], Awaitable[DeadDoneReply]],
    what: str,
) -> int:
    """Do something with letters; the exit status says whether it was done with all."""
    done: list[int] = []
    refused: list[DeadRefusal] = []
    async with settings.client() as client:
        for start in range(0, len(letters), BATCH):
            reply = await do(client, letters[start : start + BATCH])
            done += reply.done
            refused += reply.refused
    if settings.output.as_json:
        settings.output.document(DeadDoneReply.TYPE, DeadDoneReply(done=tuple(done), refused=tuple(refused)))
    else:
        for letter in done:
            settings.output.line(f"letter {letter} {what}")
        for one in refused:
            settings.output.say(f"leveret: letter {one.letter} not {what}: {one_line(one.why)}", "red")
    return exits.FAILED if refused else exits.OK


def _show_list(output: Output, reply: DeadListReply) -> None:
    if output.as_json:
        for letter in reply.letters:
            output.document("letter", letter)
    elif output.terminal:
        table = Table("letter", "filed", "queue", "by", "type", "size", "reason", box=None, header_style="dim")
        for letter in reply.letters:
            reason = Text(one_line(letter.reason), overflow="ellipsis", no_wrap=True)
            table.add_row(str(letter.letter), letter.filed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
                          *(Text(one_line(text)) for text in (letter.queue, _by(letter), letter.type)),
                          size(letter.bytes), reason)  # fmt: skip
        output.console.print(table)
        dropped = f", {reply.dropped} older ones dropped for want of room" if reply.dropped else ""
        output.say(f"{reply.total} letters on the desk{dropped}", "dim")
        if reply.more:
            output.say(f"older letters: --before {reply.letters[-1].letter}", "dim")
    else:
        for letter in reply.letters:
            fields = (str(letter.letter), letter.filed_at.isoformat(), letter.queue, _by(letter), letter.type,
                      str(letter.bytes), letter.reason)  # fmt: skip
            click.echo("\t".join(one_line(field) for field in fields))


def _show_letter(output: Output, reply: DeadReply) -> None:
    letter = reply.letter
    kept = base64.b64decode(reply.body)
    output.line((f"letter {letter.letter}", "bold"), f"  {one_line(letter.queue)}  ", (one_line(letter.reason), "red"))
    cut = "" if letter.whole else f", of which {size(len(kept))} are kept"
    rows = [
        ("filed", letter.filed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")), ("given up by", _by(letter)),
        ("type", letter.type), ("message id", letter.message_id), ("exchange", letter.exchange), ("key", letter.key),
        ("size", size(letter.bytes) + cut), ("sha256", letter.sha256), ("history", reply.history),
    ]  # fmt: skip
    for name, value in rows:
        if value:
            output.line((f"  {name:<13}", "dim"), one_line(value))
    if kept:
        output.line(("  body", "dim"))
        output.line(safe(kept.decode(errors="replace")))


def _by(letter: DeadLetterView) -> str:
    return letter.service or "broker"
