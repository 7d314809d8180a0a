"""The AsyncAPI 3.0 document of everything that crosses the broker, made from the topology and the message models.

`python -m leveret_proto.asyncapi FILE` writes it; with `--check` it only says whether FILE is up to date (exit 1: it
is not). Rules of the format: https://www.asyncapi.com/docs/reference/specification/v3.0.0 and its AMQP bindings 0.3.0.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from leveret_proto.envelope import JSON, RAW
from leveret_proto.keys import command_word
from leveret_proto.messages import MAX_CHUNK, REGISTRY, ArtifactChunk, LogChunk, Message, TailChunk
from leveret_proto.topology import COMMANDS, EVENTS, EXCHANGES, QUEUES, RECORD, SUBMIT, Exchange, Queue

COMMAND = "python -m leveret_proto.asyncapi"
#: Messages whose body is raw bytes; their model is the header table.
RAW_MESSAGES: tuple[type[Message], ...] = (LogChunk, ArtifactChunk, TailChunk)
#: The routing keys of events, which differ by type (leveret_proto.keys makes them).
EVENT_KEYS = {
    "job.event.v1": "job.{visibility}.{owner}.{job}.{status}",
    "task.event.v1": "task.{visibility}.{owner}.{job}.{task}.{status}",
    "log.event.v1": "log.{visibility}.{owner}.{job}.{task}.{status}",
    "delivery.event.v1": "delivery.{visibility}.{owner}.{job}.{status}",
    "submission.event.v1": "submission.{visibility}.{owner}.rejected",
    "worker.event.v1": "worker.{worker}.{state}",
    "group.event.v1": "group.{visibility}.{owner}.{group}.{status}",
}
_REPLIES = "replies"
_ASKED = {SUBMIT: "submission.", COMMANDS: "reply."}  # exchange → head of the types that answer what it takes
_SCHEMAS = "#/components/schemas/{model}"


class _Untitled(GenerateJsonSchema):
    """Without a title on every field: it only repeats the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Address(NamedTuple):
    """One form of routing key on an exchange, and the types published under it."""

    channel: str
    key: str
    messages: tuple[str, ...]


def document() -> dict[str, Any]:
    """Give the whole document. The same code gives the same document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Leveret",
            "version": version("leveret"),
            "description": "What crosses RabbitMQ. Routing words are percent-escaped, keys stay under 255 bytes; the "
            "AMQP property `type` names a message and its version. For subscribers: docs/events.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "channels": dict(_channels()),
        "operations": dict(_operations()),
        "components": {
            "messages": {type_: _message(REGISTRY[type_]) for type_ in sorted(REGISTRY)},
            "schemas": _schemas(),
        },
    }


def _addresses(exchange: Exchange) -> list[_Address]:
    if exchange.name in (EVENTS, RECORD):
        return [
            _Address(f"{exchange.name}.{type_.partition('.')[0]}", EVENT_KEYS[type_], (type_,))
            for type_ in exchange.messages
        ]
    key = re.sub(r"<(\w+) or \w+>", r"<\1>", exchange.key)
    return [_Address(exchange.name, key.replace("<", "{").replace(">", "}"), exchange.messages)]


def _channels() -> Iterator[tuple[str, dict[str, Any]]]:
    for exchange in EXCHANGES:
        for address in _addresses(exchange):
            yield address.channel, _exchange_channel(exchange, address)
    for queue in QUEUES:
        yield queue.name, _queue_channel(queue)
    yield (
        _REPLIES,
        {
            "address": None,
            "description": "Answers through the default exchange to the request's `reply_to`, with its "
            "`correlation_id`: direct reply-to (amq.rabbitmq.reply-to) or a queue that the broker named (amq.gen-…).",
            "messages": _references(_replies()),
        },
    )


def _exchange_channel(exchange: Exchange, address: _Address) -> dict[str, Any]:
    made: dict[str, Any] = {"address": address.key, "description": exchange.about}
    parameters = re.findall(r"\{(\w+)\}", address.key)
    if parameters:
        made["parameters"] = {name: {} for name in parameters}
    made["messages"] = _references(address.messages)
    bound = {"name": exchange.name, "type": "topic", "durable": True, "autoDelete": False}
    made["bindings"] = {"amqp": {"is": "routingKey", "exchange": bound, "bindingVersion": "0.3.0"}}
    made["x-public"] = exchange.public
    return made


def _queue_channel(queue: Queue) -> dict[str, Any]:
    named = {"name": queue.name, "durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": queue.name,
        "messages": _references(_arriving(queue)),
        "bindings": {"amqp": {"is": "queue", "queue": named, "bindingVersion": "0.3.0"}},
        # the AMQP bindings have no place for these
        "x-arguments": queue.arguments(),
        "x-bound-to": [{"exchange": exchange, "pattern": pattern} for exchange, pattern in queue.bindings],
    }


def _arriving(queue: Queue) -> tuple[str, ...]:
    """Give the types that reach `queue`: all of an exchange, less those its pattern's first word shuts out."""
    crossing = {exchange.name: exchange.messages for exchange in EXCHANGES}
    heads = {EVENTS: _first_word, RECORD: _first_word, COMMANDS: command_word}  # the word that a key begins with
    found: list[str] = []
    for exchange, pattern in queue.bindings:
        head = pattern.partition(".")[0]
        for type_ in crossing[exchange]:
            if head == "#" or exchange not in heads or heads[exchange](type_) == head:
                found.append(type_)
    return tuple(found)


def _first_word(type_: str) -> str:
    return type_.partition(".")[0]


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for exchange in EXCHANGES:
        for address in _addresses(exchange):
            sent: dict[str, Any] = {"action": "send", "channel": {"$ref": f"#/channels/{address.channel}"}}
            if exchange.name in _ASKED:
                answers = [type_ for type_ in _replies() if type_.startswith(_ASKED[exchange.name])]
                sent["reply"] = {
                    "address": {"location": "$message.header#/reply_to"},
                    "channel": {"$ref": f"#/channels/{_REPLIES}"},
                    "messages": [{"$ref": f"#/channels/{_REPLIES}/messages/{type_}"} for type_ in answers],
                }
            yield f"send-{address.channel}", sent
    for queue in QUEUES:
        yield (
            f"receive-{queue.name}",
            {"action": "receive", "channel": {"$ref": f"#/channels/{queue.name}"}, "x-service": queue.service},
        )


def _replies() -> list[str]:
    crossing = {type_ for exchange in EXCHANGES for type_ in exchange.messages}
    return sorted(REGISTRY.keys() - crossing)


def _references(types: Iterator[str] | list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {type_: {"$ref": f"#/components/messages/{type_}"} for type_ in types}


def _message(model: type[Message]) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model=model.__name__)}
    told = {"name": model.TYPE, "title": model.__name__, "summary": " ".join((model.__doc__ or "").split())}
    bindings = {"amqp": {"messageType": model.TYPE, "bindingVersion": "0.3.0"}}
    if model in RAW_MESSAGES:
        payload = {"type": "string", "format": "binary", "maxLength": MAX_CHUNK}
        return told | {"contentType": RAW, "headers": schema, "payload": payload, "bindings": bindings}
    return told | {"contentType": JSON, "payload": schema, "bindings": bindings}


def _schemas() -> dict[str, Any]:
    # as they are sent: a manifest's tasks are one-key maps on the wire
    wanted = [(REGISTRY[type_], "serialization") for type_ in sorted(REGISTRY)]
    _, made = models_json_schema(wanted, ref_template=_SCHEMAS, schema_generator=_Untitled)  # type: ignore[arg-type]
    return {name: made["$defs"][name] for name in sorted(made["$defs"])}


class _Plain(yaml.SafeDumper):
    """Without anchors: equal parts are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    """Give the document as YAML."""
    body = yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return f"# Made by `{COMMAND} docs/asyncapi.yaml`; changes here are lost.\n{body}"


def main(arguments: list[str]) -> int:
    """Write or check the file that `arguments` name. Gives the exit status: 0, 1 (stale) or 2 (wrong usage)."""
    files = [Path(given) for given in arguments if not given.startswith("-")]
    if len(files) != 1 or set(arguments) - {"--check", str(files[0])}:
        sys.stderr.write(f"usage: {COMMAND} [--check] FILE\n")
        return 2
    (file,) = files
    if "--check" not in arguments:
        file.write_text(text(), encoding="utf-8")
    elif not file.is_file() or file.read_text(encoding="utf-8") != text():
        sys.stderr.write(f"{file} is not what the code says: run `{COMMAND} {file}`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
