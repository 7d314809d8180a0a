"""Commands about secrets: the key they are sealed to, keeping, listing and forgetting them. No answer holds a value."""

from typing import Final
from uuid import uuid4

from leveret_dispatcher import secret_store
from leveret_dispatcher.commands.asked import Asked, Handlers
from leveret_dispatcher.desk import Desk
from leveret_dispatcher.keyring import NO_KEY, Keyring
from leveret_dispatcher.secret_rules import DEFAULT_MODE, BadSecret, check_description, checked_value
from leveret_dispatcher.secret_store import NewSecret
from leveret_proto.messages import (
    AddSecret,
    AskSecretsKey,
    CommandFailed,
    ListSecrets,
    Message,
    RemoveSecret,
    SecretsKeyReply,
    SecretsReply,
)
from leveret_runtime.failpoints import failpoint
from leveret_runtime.sealing import SealError

_UNAVAILABLE: Final = CommandFailed(code="unavailable", message=NO_KEY)


async def _give_key(desk: Desk, asked: Asked[AskSecretsKey]) -> Message:
    return _UNAVAILABLE if desk.keyring is None else SecretsKeyReply(public_key=desk.keyring.public_key)


async def _add(desk: Desk, asked: Asked[AddSecret]) -> Message:
    if desk.keyring is None:
        return _UNAVAILABLE
    if not asked.message_id:
        return _bad("a secret is added once for each message_id, and this command has none")
    try:
        secret = _new_secret(desk.keyring, asked.owner, asked.command)
    except (BadSecret, SealError) as error:
        return _bad(f"the secret was not added: {error}")
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        known = await secret_store.added_by(tx.on, asked.owner, asked.message_id)
        if known is not None:
            return SecretsReply(secrets=(known.view(),))
        theirs = await secret_store.of_owner(tx.on, asked.owner)
        if len(theirs) >= desk.config.secrets_most:
            most = desk.config.secrets_most
            return _conflict(f"you have {len(theirs)} secrets, and {most} is the most here: remove one first")
        added = await secret_store.insert(tx.on, secret, asked.message_id)
        if added is None:
            return _conflict(f"you have a secret named {secret.name!r} already: remove it first, or take another name")
    return SecretsReply(secrets=(added.view(),))


def _new_secret(keyring: Keyring, owner: str, command: AddSecret) -> NewSecret:
    """Open, check and lock away. Raises BadSecret, SealError."""
    if command.sealed_to != keyring.public_key:
        raise BadSecret("it was sealed to a key that this installation has replaced: ask for the key and seal again")
    check_description(command)
    value = checked_value(command, keyring.unseal(command.sealed))
    uuid = str(uuid4())
    mode = (DEFAULT_MODE if command.mode is None else command.mode) if command.kind == "file" else None
    locked = keyring.lock(value, uuid, owner)
    return NewSecret(uuid, owner, command.kind, command.name, command.path, mode, locked)


async def _list(desk: Desk, asked: Asked[ListSecrets]) -> Message:
    async with desk.database.connection() as on:
        kept = await secret_store.of_owner(on, asked.owner)
    return SecretsReply(secrets=tuple(secret.view() for secret in kept))


async def _remove(desk: Desk, asked: Asked[RemoveSecret]) -> Message:
    async with desk.transaction(lambda: failpoint("dispatcher.commands.before-commit")) as tx:
        removed = await secret_store.delete(tx.on, asked.owner, asked.command.secret)
    if removed is None:
        return CommandFailed(code="not-found", message=f"there is no secret {asked.command.secret!r} of yours")
    return SecretsReply(secrets=(removed.view(),))


def _bad(message: str) -> CommandFailed:
    return CommandFailed(code="bad-request", message=message)


def _conflict(message: str) -> CommandFailed:
    return CommandFailed(code="conflict", message=message)


HANDLERS: Handlers = {AskSecretsKey: _give_key, AddSecret: _add, ListSecrets: _list, RemoveSecret: _remove}
