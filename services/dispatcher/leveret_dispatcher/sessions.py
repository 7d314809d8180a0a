"""One live session a worker name: what to make of the first words of a session. Pure."""

from enum import StrEnum
from functools import lru_cache

from leveret_dispatcher.matching import Session
from leveret_dispatcher.session_store import PastSession
from leveret_proto.capability import SECRETS_TAG
from leveret_proto.envelope import Unreadable
from leveret_proto.messages import WorkerBeat
from leveret_runtime.sealing import SealError, seal


class Standing(StrEnum):
    """What a session that beats is to us."""

    KNOWN = "known"
    #: The name is free: it joins, for the first time or after it was lost.
    JOINS = "joins"
    #: The same spool: the worker was restarted, and the session before is over.
    RESTARTED = "restarted"
    #: Another session lives under its name.
    REFUSED = "refused"
    #: Overtaken by a later beat, or a goodbye of a session that is gone already.
    LATE = "late"


def judge(beat: WorkerBeat, live: Session | None, past: PastSession | None) -> Standing:
    """Say what a beat makes of its session.

    Args:
        live: the session that lives under the worker's name.
        past: how the beat's own session had ended, if it had.
    """
    if live is not None and live.id == beat.session:
        return Standing.KNOWN if beat.beat > live.beat else Standing.LATE
    if beat.closing:
        return Standing.LATE
    if past is not None:
        # only a session that was lost may come back, and not past another one
        back = past.ended_as == "lost" and past.worker == beat.worker and live is None
        return Standing.JOINS if back else Standing.REFUSED
    if live is None:
        return Standing.JOINS
    return Standing.RESTARTED if live.spool == beat.spool else Standing.REFUSED


def believed_key(beat: WorkerBeat) -> None:
    """Check that a session to which jobs with secrets may go has a key that they can be sealed to.

    Raises:
        Unreadable: it has none.
    """
    if beat.public_key is not None:
        _check_key(beat.public_key)
    elif SECRETS_TAG in beat.capabilities.tags:
        raise Unreadable(f"it carries the tag {SECRETS_TAG}, and gives no public key")


@lru_cache(maxsize=4096)
def _check_key(public_key: str) -> None:
    try:
        seal(b"", public_key)
    except SealError as error:
        raise Unreadable(f"public_key: {error}") from None


def new_session(beat: WorkerBeat) -> Session:
    """Make the session that a beat begins."""
    return Session(beat.worker, beat.session, beat.spool, beat.capabilities, beat.slots, beat.draining, beat.public_key)
