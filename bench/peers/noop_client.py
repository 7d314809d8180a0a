"""Sends Celery tasks and prints what was measured, in seconds, as one line of JSON; run with Celery's own Python.

`rate TASKS`: from the first publish until all have run. `answered TASKS`: until all results have come back.
`each TASKS`: one after the other, from its publish until it runs; prints a list.
"""

import json
import os
import sys
import time

from noop_tasks import answered, app, nothing

LIMIT = 60.0


def rate(count: int, pipe: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        nothing.delay()
    _await(pipe, count)
    return time.perf_counter() - began


def with_results(count: int, pipe: int) -> float:
    began = time.perf_counter()
    for result in [answered.delay() for _ in range(count)]:
        result.get(timeout=LIMIT)
    return time.perf_counter() - began


def each(count: int, pipe: int) -> list[float]:
    return [rate(1, pipe) for _ in range(count)]


def _await(pipe: int, count: int) -> None:
    while count:
        count -= len(os.read(pipe, count))


MEASURES = {"rate": rate, "answered": with_results, "each": each}


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    # for reading and writing, so that it never ends, whatever becomes of the worker
    pipe = os.open(os.environ["BENCH_PIPE"], os.O_RDWR)
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=3)
    MEASURES[kind](10, pipe)  # connections are made and every process has worked
    print(json.dumps(MEASURES[kind](count, pipe)))


main()
