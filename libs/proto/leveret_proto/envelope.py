"""Messages to bytes and back: the AMQP properties every Leveret message carries, and the reading of hostile ones."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from leveret_proto.base import REGISTRY, Message, Part
from leveret_proto.ids import message_id

#: Longest JSON body that is read, in bytes. Submissions have their own, smaller, limit.
MAX_BODY = 4 * 1024 * 1024

JSON = "application/json"
RAW = "application/octet-stream"

T = TypeVar("T", bound=Message)
P = TypeVar("P", bound=Part)


class Unreadable(ValueError):
    """A message that can't be read: unknown type, no JSON, or fields its model refuses. The text says which."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message ready for the wire: body and properties."""

    body: bytes
    type: str
    content_type: str = JSON
    headers: dict[str, Any] = field(default_factory=dict)
    message_id: str = field(default_factory=message_id)


def pack(message: Message) -> Parcel:
    """Pack a JSON message."""
    return Parcel(message.model_dump_json(exclude_none=True).encode(), message.TYPE)


def pack_bytes(message: Message, body: bytes) -> Parcel:
    """Pack raw bytes whose position and digest travel as headers."""
    return Parcel(body, message.TYPE, RAW, message.model_dump(mode="json", exclude_none=True))


def unpack(body: bytes, type_: str | None) -> Message:
    """Read a JSON message by its `type`.

    Raises:
        Unreadable: with a text that says what is wrong and where.
    """
    model = REGISTRY.get(type_ or "")
    if model is None:
        raise Unreadable(f"unknown message type {type_!r}; known are {', '.join(sorted(REGISTRY))}")
    if len(body) > MAX_BODY:
        raise Unreadable(f"{type_}: body of {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Unreadable(f"{type_}: {describe(error)}") from None


def unpack_as(model: type[T], body: bytes, type_: str | None) -> T:
    """Read a JSON message that must be of `model`. Raises Unreadable."""
    message = unpack(body, type_)
    if not isinstance(message, model):
        raise Unreadable(f"expected {model.TYPE}, got {type_}")
    return message


def unpack_head(model: type[P], body: bytes) -> P:
    """Read what every version of a message says, of one that can't be read whole. Raises Unreadable."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Unreadable(f"{model.__name__}: {describe(error)}") from None


def unpack_headers(model: type[T], headers: dict[str, Any], type_: str | None) -> T:
    """Read the header table of a raw message. Raises Unreadable."""
    if type_ != model.TYPE:
        raise Unreadable(f"expected {model.TYPE}, got {type_!r}")
    try:
        return model.model_validate(headers)
    except ValidationError as error:
        raise Unreadable(f"{type_}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Give a validation error's faults in one line, without the (hostile) input."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    told = [f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}" for fault in faults[:5]]
    if len(faults) > len(told):
        told.append(f"and {len(faults) - len(told)} more")
    return "; ".join(told)
