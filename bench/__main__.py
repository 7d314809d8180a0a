"""The bench's command: runs all measures, or those named, prints their figures and keeps them in results.json."""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

import uvloop

from bench import boot, first_line, grant, guest_api, guests, jobs, logs, logs_crowd, logs_guest, manifests, scale
from bench.result import Result
from bench.setting import Bench

#: In this order: what needs no stack first, so that the stack does not disturb it.
MEASURES = {
    "manifests": manifests.measure,
    "guest_api": guest_api.measure,
    "boot": boot.measure,
    "guests": guests.measure,
    "grant": grant.measure,
    "jobs": jobs.measure,
    "logs": logs.measure,
    "logs_guest": logs_guest.measure,
    "logs_crowd": logs_crowd.measure,
    "first_line": first_line.measure,
    "scale": scale.measure,  # last: it leaves its backlog behind
}
RESULTS = Path(__file__).parent / "results.json"
#: Seconds for one measure, the start of the stack and the peers' installation included, and for all of them.
MEASURE_LIMIT = 600.0
LIMIT = 1200.0


async def run(names: list[str], scale_jobs: int) -> list[Result]:
    """Take the named measures one after the other; print each figure when it is there."""
    results: list[Result] = []
    more = scale.JOB_LIMIT * max(0, scale_jobs - scale.JOBS)
    async with asyncio.timeout(LIMIT + more), Bench(scale_jobs) as bench:
        for name in names:
            print(f"\n{name}", flush=True)
            began = time.perf_counter()
            async with asyncio.timeout(MEASURE_LIMIT + more):
                taken = await MEASURES[name](bench)
            for result in taken:
                print(f"  {result.line()}", flush=True)
            print(f"  (took {time.perf_counter() - began:.1f} s; {load()})", flush=True)
            results += taken
    return results


def load() -> str:
    """Say how busy the machine is: others' work spoils figures."""
    return "load " + ", ".join(f"{value:.2f}" for value in os.getloadavg())


def main() -> int:
    """Exit status: 0, 1 where a promise does not hold; an error ends the run with a traceback."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--jobs", type=int, default=scale.JOBS, help="backlog of the measure scale (%(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    if arguments.jobs < scale.SMALL_JOBS:
        parser.error(f"--jobs: at least {scale.SMALL_JOBS}, the backlog it is compared with")
    names = [name for name in MEASURES if name in arguments.names or not arguments.names]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {load()}")
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        print(
            "the machine is busy with something else: these figures, and to a degree their ratios, are not to be quoted"
        )
    results = uvloop.run(run(names, arguments.jobs))
    if len(names) == len(MEASURES) and arguments.jobs == scale.JOBS:  # figures of one run only, as promised
        RESULTS.write_text(json.dumps([result.document() for result in results], indent=2, ensure_ascii=False) + "\n")
    broken = [result.name for result in results if result.holds is False]
    for name in broken:
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
