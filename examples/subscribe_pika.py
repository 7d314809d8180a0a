"""Print the status events of an owner's builds as they come, with plain pika.

    leveret up                                        # in another terminal; it prints the address and the owner
    export LEVERET_AMQP_URL=amqp://… LEVERET_OWNER=~me
    pip install pika
    python subscribe_pika.py [--job N] [--until-end]

An event may come twice, and a subscriber that was away may have missed some: each is numbered by (job, source), so that
repeats can be dropped and gaps be seen.
"""

import argparse
import json
import os
import sys
from urllib.parse import quote

import pika

KINDS = ("job", "task", "log", "delivery")
VISIBILITIES = ("public", "unlisted", "private")
ENDS = ("success", "failed", "timeout", "cancelled")


def word(text: str) -> str:
    """One word of a routing key: percent-escaped, so that no dot or wildcard in it means anything."""
    return quote(text, safe="~/@:+,=!-_").replace(".", "%2E")


def patterns(owner: str, job: int | None) -> list[str]:
    """What to bind: everything about the owner's jobs and rejected submissions, or about one job."""
    about = word(owner) if job is None else f"{word(owner)}.{job}"
    kinds = (*KINDS, "submission") if job is None else KINDS
    return [f"{kind}.{visibility}.{about}.#" for kind in kinds for visibility in VISIBILITIES]


def is_new(event: dict, last: dict[tuple[int, str], int]) -> bool:
    """Whether an event was not seen before; `last` holds the highest number by job and source."""
    if "seq" not in event:
        return True  # a rejected submission has no job, and no number
    key = (event["facts"]["job"], event["source"])
    seen = last.get(key)
    if seen is not None and event["seq"] > seen + 1:
        print(f"job {key[0]}: {key[1]}'s events {seen + 1} to {event['seq'] - 1} are missing", file=sys.stderr)
    last[key] = max(seen or 0, event["seq"])
    return seen is None or event["seq"] > seen


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--job", type=int, help="only this job")
    arguments.add_argument("--until-end", action="store_true", help="stop when the job (or the first one) has ended")
    given = arguments.parse_args()
    last: dict[tuple[int, str], int] = {}
    with pika.BlockingConnection(pika.URLParameters(os.environ["LEVERET_AMQP_URL"])) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue  # goes with the connection
        for pattern in patterns(os.environ["LEVERET_OWNER"], given.job):
            channel.queue_bind(queue, "leveret.events", pattern)
        print("listening", file=sys.stderr, flush=True)
        for delivery, properties, body in channel.consume(queue, auto_ack=True):
            event = json.loads(body)
            if is_new(event, last):
                print(delivery.routing_key, event.get("seq", "-"), event.get("reason", ""), sep="\t", flush=True)
            if given.until_end and properties.type == "job.event.v1" and event["status"] in ENDS:
                return


if __name__ == "__main__":
    main()
