"""Which session may speak for a worker name."""

from uuid import uuid4

from leveret_dispatcher.matching import Session
from leveret_dispatcher.session_store import EndedAs, PastSession
from leveret_dispatcher.sessions import Standing, judge
from leveret_proto.capability import Capabilities
from leveret_proto.messages import WorkerBeat

S1, S2, SPOOL, OTHER = (str(uuid4()) for _ in range(4))


def beat(session: str = S1, spool: str = SPOOL, number: int = 1, *, closing: bool = False) -> WorkerBeat:
    return WorkerBeat(
        worker="w", session=session, spool=spool, beat=number, capabilities=Capabilities(), slots=1, closing=closing
    )


def live(session: str = S1, heard: int = 0) -> Session:
    return Session("w", session, SPOOL, Capabilities(), 1, beat=heard)


def past(ended_as: EndedAs, worker: str = "w") -> PastSession:
    return PastSession(worker, ended_as)


def test_a_free_name_is_joined() -> None:
    assert judge(beat(), None, None) is Standing.JOINS


def test_the_live_session_is_known_and_its_old_beats_are_not_heard() -> None:
    assert judge(beat(number=3), live(heard=2), None) is Standing.KNOWN
    assert judge(beat(number=2), live(heard=2), None) is Standing.LATE


def test_the_same_spool_is_the_worker_restarted_and_another_is_refused() -> None:
    assert judge(beat(S2), live(), None) is Standing.RESTARTED
    assert judge(beat(S2, OTHER), live(), None) is Standing.REFUSED


def test_a_lost_session_may_come_back_unless_another_lives() -> None:
    assert judge(beat(), None, past("lost")) is Standing.JOINS
    assert judge(beat(), live(S2), past("lost")) is Standing.REFUSED
    assert judge(beat(), None, past("lost", worker="other")) is Standing.REFUSED


def test_a_replaced_or_closed_session_never_comes_back() -> None:
    assert judge(beat(), live(S2), past("replaced")) is Standing.REFUSED
    assert judge(beat(), None, past("closed")) is Standing.REFUSED


def test_a_goodbye_from_an_unknown_session_is_not_heard() -> None:
    assert judge(beat(closing=True), None, None) is Standing.LATE
