"""Who may do what at the broker: one table of roles, from which the definitions (and their tests) are made.

RabbitMQ checks three regular expressions on resource names (configure, write, read) and, on topic exchanges, one more
on the routing key of a publish (write) or a binding (read).
"""

import re
from dataclasses import dataclass
from typing import Literal

from leveret_proto import topology as t
from leveret_proto.words import escape

NOTHING = "^$"
#: Publishing to the default exchange: replies. A service checks that a reply goes to a reply queue only.
_REPLIES = "amq\\.default"
#: A queue that the broker named. Whoever may also publish to Leveret's exchanges gets no other: under a name of its own
#: choice it could declare an exchange, bind one of ours to it, and publish there with any key, unseen by topic grants.
_UNNAMED = "amq\\.gen-.*"

Service = Literal["intake", "dispatcher", "logsink", "notifier"]
SERVICES: tuple[Service, ...] = ("intake", "dispatcher", "logsink", "notifier")


@dataclass(frozen=True)
class TopicGrant:
    """On `exchange`, publish only keys that match `write`, and bind only patterns that match `read`."""

    exchange: str
    write: str = ".*"
    read: str = ".*"


@dataclass(frozen=True)
class Permissions:
    """A user's permissions in Leveret's vhost."""

    configure: str
    write: str
    read: str
    topics: tuple[TopicGrant, ...] = ()


def _any(*names: str) -> str:
    return f"^({'|'.join(names)})$" if names else NOTHING


def _exact(*names: str) -> list[str]:
    return [re.escape(name) for name in names]


#: Services that answer requests.
_ANSWERING = ("intake", "dispatcher", "logsink")
#: What each service publishes to.
_WRITES: dict[Service, tuple[str, ...]] = {
    "intake": (t.JOBS, t.RECORD, t.EVENTS, t.DEAD),
    # a retried job is submitted again, and a dead letter goes back to where it had been published
    "dispatcher": tuple(exchange.name for exchange in t.EXCHANGES),
    "logsink": (t.TAIL, t.RESEND, t.RECORD, t.EVENTS, t.DEAD),
    "notifier": (t.RECORD, t.EVENTS, t.DEAD),
}

#: What a service reads besides its own queues.
_READS: dict[Service, tuple[str, ...]] = {"logsink": (t.REPLAY,)}


def service(name: Service) -> Permissions:
    """Give the permissions of one of the four central services: its exchanges, its queues, and replies."""
    return Permissions(
        configure=NOTHING,
        write=_any(*_exact(*_WRITES[name]), *([_REPLIES] if name in _ANSWERING else [])),
        read=_any(f"leveret\\.{name}\\..*", *_exact(*_READS.get(name, ()))),
    )


def worker(name: str) -> Permissions:
    """Give the permissions of the worker host `name`: it speaks as itself alone.

    It reads its own session's queue, which the broker has named and holds exclusive to the session's connection.
    """
    word = re.escape(escape(name))
    return Permissions(
        configure=_any(_UNNAMED),
        write=_any(*_exact(t.WORKERS, t.STATUS, t.LOGS, t.ARTIFACTS), _UNNAMED),
        read=_any(*_exact(t.WORK, t.CONTROL, t.RESEND), _UNNAMED),
        topics=(
            TopicGrant(t.WORKERS, write=f"^{word}$", read=NOTHING),
            TopicGrant(t.STATUS, write=f"^{word}\\.[0-9]+\\.[0-9]+$", read=NOTHING),
            TopicGrant(t.LOGS, write=f"^[0-9]{{2}}\\.{word}\\.[0-9]+\\.[0-9]+\\.[^.]+$", read=NOTHING),
            TopicGrant(t.ARTIFACTS, write=f"^[0-9]{{2}}\\.{word}\\.[0-9]+\\.[0-9]+$", read=NOTHING),
            TopicGrant(t.WORK, write=NOTHING, read=f"^[^.#*]+\\.[^.#*]+\\.(kvm|any)\\.{word}\\.[0-9a-f-]+$"),
            TopicGrant(t.CONTROL, write=NOTHING, read=f"^{word}\\.[0-9a-f-]+$"),
            TopicGrant(t.RESEND, write=NOTHING, read=f"^{word}$"),
        ),
    )


def submitter(owners: tuple[str, ...]) -> Permissions:
    """Give the permissions of an account that submits and commands for `owners`, and follows them or the public.

    Its queues are named by the broker. For a durable queue with a name, there is `subscriber`.
    """
    own = _own(owners)
    return Permissions(
        configure=_any(_UNNAMED),
        write=_any(*_exact(t.SUBMIT, t.COMMANDS), _UNNAMED),
        read=_any(*_exact(t.EVENTS, t.TAIL), _UNNAMED),
        topics=(
            TopicGrant(t.SUBMIT, write=f"^{own}\\.[^.]+$", read=NOTHING),
            TopicGrant(t.COMMANDS, write=f"^({'|'.join((*t.OWNER_WORDS, *t.LOGSINK_WORDS))})\\.{own}$", read=NOTHING),
            *_following(own),
        ),
    )


def operator() -> Permissions:
    """Give the permissions of an operator's account: every command, on behalf of any owner, and every event."""
    return Permissions(
        configure=_any(_UNNAMED),
        write=_any(*_exact(t.SUBMIT, t.COMMANDS), _UNNAMED),
        read=_any(*_exact(t.EVENTS, t.TAIL), _UNNAMED),
        topics=(
            TopicGrant(t.SUBMIT, write="^[^.]+\\.[^.]+$", read=NOTHING),
            TopicGrant(t.COMMANDS, write="^[a-z]+\\.[^.]+$", read=NOTHING),
            TopicGrant(t.EVENTS, write=NOTHING, read=".*"),
            TopicGrant(t.TAIL, write=NOTHING, read=".*"),
        ),
    )


def subscriber(name: str, owners: tuple[str, ...]) -> Permissions:
    """Give the permissions of the account `name` that follows `owners` and the public, and publishes nothing.

    Its queues are `leveret.client.<name>.…`, durable where it likes, or named by the broker.
    """
    queue = f"leveret\\.client\\.{re.escape(escape(name))}\\..*"
    return Permissions(
        configure=_any(queue, _UNNAMED),
        write=_any(queue, _UNNAMED),
        read=_any(*_exact(t.EVENTS, t.TAIL), queue, _UNNAMED),
        topics=_following(_own(owners)),
    )


def _own(owners: tuple[str, ...]) -> str:
    return f"({'|'.join(re.escape(escape(owner)) for owner in owners) or '(?!)'})"  # of nobody: matches nothing


def _following(own: str) -> tuple[TopicGrant, ...]:
    """Give what a follower may bind: public jobs of anyone, all jobs of its `own`, workers."""
    seen = f"(public\\.[^.]+|(private|unlisted)\\.{own})"
    events = f"^((job|task|log|delivery|submission|group)\\.{seen}(\\..*)?|worker\\..*)$"
    return (
        TopicGrant(t.EVENTS, write=NOTHING, read=events),
        TopicGrant(t.TAIL, write=NOTHING, read=f"^{seen}\\..*$"),
    )
