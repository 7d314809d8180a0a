"""The events of the past, as logsink replays them page by page."""

from pydantic import ValidationError

from leveret_proto.base import REGISTRY
from leveret_proto.messages import Event, ReplayedEvent, ReplayReply


def events_of(page: ReplayReply) -> list[tuple[int, Event]]:
    """Read a page's events, each with its place, without those of a newer Leveret that this version does not know."""
    read = ((given.offset, _event(given)) for given in page.events)
    return [(offset, event) for offset, event in read if event is not None]


def _event(given: ReplayedEvent) -> Event | None:
    model = REGISTRY.get(given.type)
    try:
        event = None if model is None else model.model_validate(given.body)
    except ValidationError:
        return None
    return event if isinstance(event, Event) else None
