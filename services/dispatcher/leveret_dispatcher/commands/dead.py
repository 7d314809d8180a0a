"""The dead-letter desk over `leveret.commands`: list, show, retry, drop. The broker lets operators alone ask."""

import base64
from collections.abc import Sequence

import structlog

from leveret_dispatcher import dead_store
from leveret_dispatcher.commands.asked import Asked, Handlers
from leveret_dispatcher.config import APP
from leveret_dispatcher.dead_letters import parcel, refusal
from leveret_dispatcher.dead_store import Filed
from leveret_dispatcher.desk import Desk
from leveret_proto.messages import (
    CommandFailed,
    DeadDoneReply,
    DeadLetterView,
    DeadListReply,
    DeadRefusal,
    DeadReply,
    DropDead,
    ListDead,
    Message,
    RetryDead,
    ShowDead,
)
from leveret_runtime.broker import Refused, Unroutable

log = structlog.get_logger(__name__)

#: Letters read and published together.
BATCH = 50
_GONE = "there is no such letter"


async def list_letters(desk: Desk, asked: Asked[ListDead]) -> Message:
    """List dead letters, newest first."""
    command = asked.command
    async with desk.database.connection() as on:
        found = await dead_store.page(on, command.before, command.queue, command.limit + 1)
        sums = await dead_store.sums(on)
    return DeadListReply(
        letters=tuple(_view(filed) for filed in found[: command.limit]),
        more=len(found) > command.limit,
        total=sums.letters,
        dropped=sums.dropped,
    )


async def show_letter(desk: Desk, asked: Asked[ShowDead]) -> Message:
    """Show one letter with what was kept of its body."""
    async with desk.database.connection() as on:
        filed = (await dead_store.letters(on, [asked.command.letter])).get(asked.command.letter)
    if filed is None:
        return CommandFailed(code="not-found", message=f"there is no dead letter {asked.command.letter}")
    body = base64.b64encode(filed.letter.body).decode()
    return DeadReply(letter=_view(filed), history=filed.letter.history, body=body)


async def retry_letters(desk: Desk, asked: Asked[RetryDead]) -> Message:
    """Publish letters again as they came; those that the broker takes leave the desk.

    A crash between the two publishes a letter again when the command is repeated, under the same `message_id`.
    """
    done: list[int] = []
    refused: list[DeadRefusal] = []
    ids = list(dict.fromkeys(asked.command.letters))
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        whys = await _publish_all(desk, some)
        taken = [letter for letter in some if whys[letter] is None]
        async with desk.leadership.transaction() as on:
            await dead_store.drop(on, taken)
        done += taken
        refused += [DeadRefusal(letter=letter, why=why) for letter, why in whys.items() if why is not None]
    log.info("dead letters published again", by=asked.owner, done=len(done), refused=len(refused))
    return DeadDoneReply(done=tuple(done), refused=tuple(refused))


async def _publish_all(desk: Desk, ids: Sequence[int]) -> dict[int, str | None]:
    """Publish letters; say of each why it was not taken, None where it was."""
    async with desk.database.connection() as on:
        letters = await dead_store.letters(on, ids)
    # one after the other: what the broker returns is told from the rest by its message_id, which letters may share
    return {letter: await _publish(desk, letters.get(letter)) for letter in ids}


async def _publish(desk: Desk, filed: Filed | None) -> str | None:
    why = _GONE if filed is None else refusal(filed.letter)
    if filed is None or why is not None:
        return why
    letter = filed.letter
    try:
        await desk.publisher.send(letter.exchange, letter.key, parcel(letter), app=APP)
    except (Unroutable, Refused, ValueError) as error:
        return str(error)
    return None


async def drop_letters(desk: Desk, asked: Asked[DropDead]) -> Message:
    """Forget letters."""
    async with desk.leadership.transaction() as on:
        gone = await dead_store.drop(on, asked.command.letters)
    log.info("dead letters dropped", by=asked.owner, done=len(gone))
    missing = (letter for letter in dict.fromkeys(asked.command.letters) if letter not in gone)
    return DeadDoneReply(
        done=tuple(sorted(gone)), refused=tuple(DeadRefusal(letter=letter, why=_GONE) for letter in missing)
    )


def _view(filed: Filed) -> DeadLetterView:
    letter = filed.letter
    return DeadLetterView(
        letter=filed.id, queue=letter.queue, reason=letter.reason, service=letter.service, type=letter.type,
        message_id=letter.message_id, exchange=letter.exchange, key=letter.key, bytes=letter.size,
        sha256=letter.sha256, whole=filed.whole, filed_at=filed.filed_at,
    )  # fmt: skip


HANDLERS: Handlers = {
    ListDead: list_letters, ShowDead: show_letter, RetryDead: retry_letters, DropDead: drop_letters,
}  # fmt: skip
