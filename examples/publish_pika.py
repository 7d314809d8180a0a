"""Submit a build manifest with plain pika, and wait for the answer: the job's id, or every fault with its line.

    leveret up                                        # in another terminal; it prints the address and the owner
    export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
    pip install pika
    python publish_pika.py hello.yml

Prints the job's id. Exit status: 0 accepted, 1 rejected, 2 no answer. A manifest that is published again under the same
message_id, as after a lost connection, makes no second job.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import pika

ANSWER_LIMIT = 30.0  # seconds
REPLY_TO = "amq.rabbitmq.reply-to"  # RabbitMQ's direct reply-to: answers without a queue


def word(text: str) -> str:
    """One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything."""
    return quote(text, safe="~/@:+,=!-_").replace(".", "%2E")


def submit(manifest: bytes, owner: str, project: str) -> dict | None:
    """Publish and give the answer, or None when none came in time."""
    answers: list[dict] = []
    with pika.BlockingConnection(pika.URLParameters(os.environ["LEVERET_AMQP_URL"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_consume(REPLY_TO, lambda _c, _m, _p, body: answers.append(json.loads(body)), auto_ack=True)
        channel.basic_publish(
            "leveret.submit",
            f"{word(owner)}.{word(project)}",
            manifest,
            pika.BasicProperties(
                content_type="application/yaml",
                message_id=str(uuid.uuid4()),
                reply_to=REPLY_TO,
                delivery_mode=pika.DeliveryMode.Persistent.value,
                headers={"note": "from publish_pika.py"},
            ),
            mandatory=True,
        )
        deadline = time.monotonic() + ANSWER_LIMIT
        while not answers and time.monotonic() < deadline:
            connection.process_data_events(time_limit=1)
    return answers[0] if answers else None


def main() -> int:
    path = Path(sys.argv[1])
    answer = submit(path.read_bytes(), os.environ["LEVERET_OWNER"], "examples")
    if answer is None:
        print(f"no answer within {ANSWER_LIMIT:.0f} s", file=sys.stderr)
        return 2
    for found in answer.get("diagnostics", answer.get("warnings", [])):
        place = f"{path}:{found['line']}:{found['column']}"
        print(f"{place}: {found['severity']}: {found['path']}: {found['message']}", file=sys.stderr)
    if "job" not in answer:
        print(f"rejected: {answer['message']}", file=sys.stderr)
        return 1
    print(answer["job"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
