"""What came of one try, judged from the other end's answer. Pure.

`detail` goes into a public event: it names no address and repeats nothing the other end said. `answer` is for the
operator: it stays in the database and the service's log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["delivered", "retrying", "failed"]

#: Refusals that pass: request timeout, too early, too many requests (RFC 9110 section 15.5.9, RFC 8470, RFC 6585).
_PASSING = frozenset({408, 425, 429})
#: Characters of another end's answer that are kept.
ANSWER_LIMIT = 2048


class Unsendable(ValueError):
    """A trigger that can't be served however often it is tried. The text may be published: it repeats no address."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a try.

    Attributes:
        status: `retrying` where trying again may help.
        detail: why, for everyone who may see the job.
        answer: what the other end said, for the operator.
        wished: seconds the other end asked us to wait.
        reached: mail: recipients served by this try.
        remaining: mail: recipients to try again; None is all that this try was for.
    """

    status: Status
    detail: str
    answer: str = ""
    wished: float = 0.0
    reached: int = 0
    remaining: tuple[str, ...] | None = None


def failed(detail: str, answer: str = "") -> Outcome:
    """Say that trying again won't help."""
    return Outcome("failed", detail, answer)


def retrying(detail: str, answer: str = "", wished: float = 0.0) -> Outcome:
    """Say that trying again may help."""
    return Outcome("retrying", detail, answer, wished)


def judge_http(status: int, answer: str, retry_after: str | None = None) -> Outcome:
    """Judge a webhook's response: 2xx delivered; 408, 425, 429 and 5xx try again; all else is final.

    Args:
        retry_after: the header's value; seconds are heeded, a date is not.
    """
    if 200 <= status < 300:
        return Outcome("delivered", f"HTTP {status}", answer)
    if 300 <= status < 400:
        return failed(f"HTTP {status}: redirects are not followed", answer)
    if status in _PASSING or status >= 500:
        text = (retry_after or "").strip()
        wished = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
        return retrying(f"HTTP {status}", answer, wished)
    return failed(f"HTTP {status}", answer)


def judge_smtp(code: int, answer: str) -> Outcome:
    """Judge a server's refusal of a whole mail: 5xx is final (RFC 5321 section 4.2.1)."""
    outcome = failed if 500 <= code < 600 else retrying
    return outcome(f"SMTP {code}", answer)


def judge_recipients(asked: Sequence[str], refused: Mapping[str, tuple[int, str]], reached_before: int) -> Outcome:
    """Judge a mail that the server took for some recipients or none.

    Args:
        asked: whom this try was for.
        refused: recipient → (SMTP code, text).
        reached_before: recipients that earlier tries served.
    """
    reached = len(asked) - len(refused)
    later = tuple(recipient for recipient, (code, _) in refused.items() if not 500 <= code < 600)
    answer = "; ".join(f"{recipient}: {code} {text}" for recipient, (code, text) in refused.items())
    told = f"{len(refused)} of {len(asked)} recipients refused" if refused else "accepted by the mail server"
    if later:
        return Outcome("retrying", told, answer, reached=reached, remaining=later)
    if reached or reached_before:
        return Outcome("delivered", told, answer, reached=reached)
    return failed(told, answer)
