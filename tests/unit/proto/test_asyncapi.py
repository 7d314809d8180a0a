from pathlib import Path
from typing import Any

import pytest
import yaml

from leveret_proto import asyncapi
from leveret_proto.messages import REGISTRY
from leveret_proto.topology import EXCHANGES, QUEUES

DOCUMENT = asyncapi.document()


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return found + [ref for value in part.values() for ref in references(value)]
    return [ref for value in part for ref in references(value)] if isinstance(part, list) else []


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    head, *path = reference.split("/")
    assert head == "#"
    for name in path:
        found = found[name]
    return found


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 200
    for reference in found:
        resolved(reference)


def test_everything_is_in_it() -> None:
    assert DOCUMENT["components"]["messages"].keys() == REGISTRY.keys()
    named = {channel.get("bindings", {}).get("amqp", {}).get("exchange", {}).get("name")
             for channel in DOCUMENT["channels"].values()}  # fmt: skip
    assert named == {exchange.name for exchange in EXCHANGES} | {None}
    assert {queue.name for queue in QUEUES} <= DOCUMENT["channels"].keys()
    crossing = {name for channel in DOCUMENT["channels"].values() for name in channel["messages"]}
    assert crossing == REGISTRY.keys()


def test_the_parameters_of_an_address_are_those_it_names() -> None:
    for channel in DOCUMENT["channels"].values():
        for name in channel.get("parameters", {}):
            assert f"{{{name}}}" in channel["address"]
        assert "<" not in str(channel["address"])


def test_an_operation_speaks_of_its_channels_messages() -> None:
    for operation in DOCUMENT["operations"].values():
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in DOCUMENT["channels"]
        for message in operation.get("reply", {}).get("messages", ()):
            assert message["$ref"].startswith(operation["reply"]["channel"]["$ref"])
    answers = {name: len(operation["reply"]["messages"])
               for name, operation in DOCUMENT["operations"].items() if "reply" in operation}  # fmt: skip
    assert answers == {"send-leveret.submit": 2, "send-leveret.commands": 16}


@pytest.mark.parametrize(
    ("queue", "types"),
    [
        ("leveret.logsink.record", {"job.event.v1"}),
        ("leveret.logsink.history", {"command.history.v1", "command.links.v1"}),
        (
            "leveret.dispatcher.commands",
            {type_ for type_ in REGISTRY if type_.startswith("command.")}
            - {"command.history.v1", "command.links.v1", "command.replay.v1"},
        ),
        ("leveret.logsink.replay", {"command.replay.v1"}),
        ("leveret.notifier.jobs", {"job.ended.v1", "group.ended.v1"}),
        ("leveret.replay", set(asyncapi.EVENT_KEYS)),
        ("leveret.logsink.logs.03", {"log.chunk.v1"}),
    ],
)
def test_what_reaches_a_queue(queue: str, types: set[str]) -> None:
    assert DOCUMENT["channels"][queue]["messages"].keys() == types


def test_a_raw_message_has_its_model_as_headers() -> None:
    message = DOCUMENT["components"]["messages"]["log.chunk.v1"]
    assert message["headers"] == {"$ref": "#/components/schemas/LogChunk"}
    assert message["payload"]["format"] == "binary"


def test_a_task_is_shown_as_it_is_sent() -> None:
    assert DOCUMENT["components"]["schemas"]["Task"]["additionalProperties"] == {"type": "string"}


def test_it_is_yaml_and_the_same_every_time() -> None:
    assert yaml.safe_load(asyncapi.text()) == DOCUMENT
    assert asyncapi.text() == asyncapi.text()
    assert "&id" not in asyncapi.text()


def test_check_tells_fresh_from_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "asyncapi.yaml"
    assert asyncapi.main(["--check", str(file)]) == 1
    assert asyncapi.main([str(file)]) == 0
    assert asyncapi.main(["--check", str(file)]) == 0
    capsys.readouterr()
    file.write_text(file.read_text().replace("Manifests in.", "Manifests out."))
    assert asyncapi.main(["--check", str(file)]) == 1
    assert f"run `python -m leveret_proto.asyncapi {file}`" in capsys.readouterr().err
    assert asyncapi.main([]) == asyncapi.main(["a", "b"]) == asyncapi.main(["--chekc", "a"]) == 2
