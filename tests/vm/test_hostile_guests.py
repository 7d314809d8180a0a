"""Guests that do their worst, in real machines of a real worker process: each costs its own build and nothing else.

The agent is hostile, or a build's task is. Beside every one an honest guest builds, whose log and result must come out
right.
"""

import asyncio
import re
import signal
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leveret_proto.messages import AttemptStatus, Grant, JobFacts, Settle, WorkerBeat
from tests.support.dispatcher_played import DispatcherPlayed, make_grant
from tests.support.guest_images import stored_image
from tests.support.hostile_guests import hostile_store, image_name
from tests.support.leavings import OPENED_ONCE, Holdings, memory, until_nothing_is_left
from tests.support.lone_worker import lone_worker
from tests.support.machines import machines
from tests.support.processes import until_gone
from tests.support.services import Service, Services
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(900)]

IMAGE = "test/minimal"
ARCH = "x86_64"
#: Seconds a guest may be silent, and take for an answer, in these tests.
SILENCE = 4.0
ANSWER = 10.0
#: Seconds from a job's time limit until its machine is gone and its end is told: what is promised.
ENDED_WITHIN = 10.0
#: Bytes of memory that no guest may make the worker need.
MEMORY = 160 * 1024 * 1024
#: Job numbers whose logs come by the partition that the played dispatcher reads.
JOBS = range(7, 1000, 16)
NEIGHBOUR = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i + 1)); sleep 0.2; done"


@dataclass(frozen=True)
class Case:
    """A hostile guest, or an honest one with a hostile task, and how its build ends."""

    name: str
    """What the agent does (a function in `hostile_agent.py`) or, with an honest agent, the task."""
    result: str
    reason: str
    """A pattern, as is the detail."""
    detail: str | None
    task: str = "sleep 1000"
    artifacts: str = "[]"
    time_limit: float = 200.0
    honest: bool = False
    #: Further variables of the worker.
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def image(self) -> str:
        return IMAGE if self.honest else image_name(self.name)


StartHostileWorker = Callable[..., Awaitable[Service]]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_worker(vhost: Vhost, services: Services, tmp_path: Path, spool: Path) -> StartHostileWorker:
    async def start(*behaviours: str, **environment: str) -> Service:
        store = hostile_store(tmp_path / "images", stored_image(IMAGE), behaviours)
        given = lone_worker(
            vhost,
            spool,
            slots=1 + len(behaviours),
            images=store.root,
            probe_limit=0.1,
            beat_interval=1,
            boot_limit=60,
            kill_after=1,
            # A hostile agent is there from the first moment on: no template of it is wanted.
            start="cold" if behaviours else "template",
            templates_ahead=False,
            guest_silence_limit=SILENCE,
            guest_answer_limit=ANSWER,
        )
        return await services.start("leveret_worker.main", given | environment)

    return start


async def proved(dispatcher: DispatcherPlayed, images: int) -> WorkerBeat:
    """The first beat by which all trials are over, so that nothing but builds runs from here on."""
    while True:
        beat = await dispatcher.beat(limit=60)
        if len(beat.capabilities.images) == images and any(note.startswith("kvm: ") for note in beat.notes):
            return beat


async def ends(dispatcher: DispatcherPlayed, grants: list[Grant], limit: float) -> dict[str, AttemptStatus]:
    """The last status of each grant."""
    found: dict[str, AttemptStatus] = {}
    async with asyncio.timeout(limit):
        while len(found) < len(grants):
            ended = await dispatcher.status("ended", limit=limit)
            found[ended.grant] = ended
    return found


def grant_of(case: Case, beat: WorkerBeat, n: int) -> Grant:
    script = textwrap.indent(case.task, "    ")
    manifest = f"image: {case.image}\ntasks:\n- hostile-{n}: |\n{script}\nartifacts: {case.artifacts}\n"
    return grant(beat, manifest, n, time_limit=case.time_limit)


def grant(beat: WorkerBeat, manifest: str, n: int, time_limit: float) -> Grant:
    facts = JobFacts(job=JOBS[n], owner="me", project="p", submission=f"s-{n}", link="l" * 32)
    limits = {"time_limit": time_limit, "log_limit": 2**20, "artifact_limit": 2**16}
    return make_grant(beat, manifest, facts=facts, token=beat.tokens[n], **limits)


async def play(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker, spool: Path, cases: tuple[Case, ...]
) -> dict[Case, AttemptStatus]:
    """Build all cases at once, an honest build beside them, and see that each costs nothing but its own build."""
    behaviours = tuple(case.name for case in cases if not case.honest)
    settings = {name: value for case in cases for name, value in case.settings}
    service = await start_worker(*behaviours, LEVERET_WORKER_SLOTS=str(len(cases) + 1), **settings)
    beat = await proved(dispatcher, len(behaviours) + 1)
    before = Holdings.of(service.pid, spool)
    neighbour = grant(beat, f"image: {IMAGE}\ntasks:\n- neighbour: |\n    {NEIGHBOUR}\n", len(cases), 300)
    grants = [grant_of(case, beat, n) for n, case in enumerate(cases)]
    for given in (neighbour, *grants):
        await dispatcher.grant(given, ARCH, given.manifest.image)
    ended = await ends(dispatcher, [neighbour, *grants], limit=300)

    honest = ended[neighbour.grant]
    assert (honest.result, honest.reason, honest.detail) == ("success", "completed", None)
    said = (await dispatcher.log("neighbour")).decode().splitlines()
    assert [line for line in said if line.startswith("line ")] == [f"line {i}" for i in range(40)]
    for case, given in zip(cases, grants, strict=True):
        right_end(case, ended[given.grant])
    assert memory(service.pid, "VmHWM") < MEMORY
    await dispatcher.order(beat, Settle(grants=tuple(ended)))
    await until_nothing_is_left(service.pid, spool, before, kept=OPENED_ONCE)
    assert service.running
    return {case: ended[given.grant] for case, given in zip(cases, grants, strict=True)}


def right_end(case: Case, ended: AttemptStatus) -> None:
    """The build ended as the case says, and in words that can be printed."""
    assert ended.result == case.result, f"{case}: {ended.reason}: {ended.detail}"
    assert re.fullmatch(case.reason, str(ended.reason)), f"{case}: {ended.reason}: {ended.detail}"
    assert re.fullmatch(case.detail or "", ended.detail or ""), f"{case}: {ended.detail}"
    assert (ended.detail or "").isprintable()
    assert ended.timings.total is not None
    assert ended.timings.total < case.time_limit + ENDED_WITHIN, f"{case}: {ended.timings}"


def failed(name: str, reason: str, detail: str, **given: Any) -> Case:
    return Case(name, "failed", reason, detail, **given)


def silent(name: str, reason: str = "guest-lost") -> Case:
    return failed(name, reason, r"the guest has not answered the beat for \d+\.\d s")


def lying(name: str, detail: str, **given: Any) -> Case:
    return failed(name, "protocol-violation", detail, **given)


def ended(name: str) -> Case:
    return failed(name, "machine-ended", r"[^\n]{10,4096}")


def unborn(name: str, detail: str) -> Case:
    """Its three boots take as long as they may, so that is not long here."""
    settings = (("LEVERET_WORKER_BOOT_LIMIT", "20"),)
    return failed(name, "boot-failed", f"no guest came up in 3 starts: {detail}", settings=settings)


def out_of_time(name: str, task: str = "sleep 1000", seconds: float = 30, **given: Any) -> Case:
    detail = f"the job's time limit of {seconds:g} s is over: .+"
    return Case(name, "timeout", "time-limit", detail, task, time_limit=seconds, **given)


def honest_agent(make: Callable[..., Case], name: str, *rest: Any, **given: Any) -> Case:
    # Its agent may well be starved of a beat's answer for longer than an agent that lies should be.
    return make(name, *rest, honest=True, settings=(("LEVERET_WORKER_GUEST_SILENCE_LIMIT", "60"),), **given)


#: A task and an artifact of it, for guests that lie about files.
THING = {"task": "echo made >thing", "artifacts": "[thing]"}
SOON = (
    lying("lies_in_lengths", r"a frame of \d+ bytes; at most \d+ are allowed"),
    silent("falls_silent"),
    lying("floods_with_preambles", r"\d+ preambles that begin no connection"),
    out_of_time("holds_the_clock_back"),
)
CASES = (
    *SOON,
    unborn("never_opens_its_port", "no agent opened its port within 20 s.*"),
    unborn("never_says_hello", "no agent (answered|opened its port) within 20 s.*"),
    unborn("answers_hello_and_nothing_more", ".*answer.*"),
    failed("answers_nothing_but_the_beat", "guest-lost", "the guest did not start the command within 10 s"),
    lying("floods_with_noise", r"a frame of \d+ bytes; at most \d+ are allowed"),
    silent("sends_half_a_frame_byte_by_byte"),
    lying("writes_past_its_credit", r"DATA beyond its credit on channel \d+"),
    silent("writes_and_never_reads"),
    failed("reopens_its_port_without_end", "guest-lost|agent-gone", r"[^\n]{10,4096}"),
    failed("complains_at_length", "task-failed", r"task hostile-0 can't be started: [^\n]{1,2100}"),
    lying("lies_of_a_files_length", r"5 bytes came of .*, the guest claims to have sent 10{15}", **THING),
    lying("sends_more_of_a_file_than_it_may", r"the guest sends more than the \d+ bytes asked for of .*", **THING),
    ended("powers_off"),
    ended("panics"),
    ended("reboots"),
    ended("ends"),
    out_of_time("never_ends_a_command"),
    out_of_time("acknowledges_nothing", task="cat /dev/zero"),
    Case("floods_its_console", "success", "completed", None, task="sleep 5"),
)

MEMORY_HOG = "python3 -c 'held = []\nwhile True: held.append(bytearray(b\"x\" * (1 << 24)))'"
TASKS = (
    honest_agent(out_of_time, "fork bomb", task="bomb() { bomb | bomb & }; bomb; sleep 1000", seconds=60),
    honest_agent(failed, "full disk", "task-failed", ".*", task="cat /dev/zero >big"),
    honest_agent(failed, "full memory", "task-failed", ".*exit status 137", task=MEMORY_HOG),
    honest_agent(out_of_time, "clock set back", task="sudo date -s @0; sleep 1000"),
    honest_agent(out_of_time, "output without end", task="tr '\\0' x </dev/zero"),
    honest_agent(failed, "device as artifact", "artifact-failed", ".*not a regular file.*",
                 task="ln -s /dev/zero thing", artifacts="[thing]"),
    honest_agent(failed, "pipe as artifact", "artifact-failed", ".*not a regular file.*",
                 task="mkfifo thing", artifacts="[thing]"),
    honest_agent(failed, "large artifact", "artifact-failed", ".*",
                 task="head -c 1000000 /dev/zero >thing", artifacts="[thing]"),
)  # fmt: skip


async def test_hostile_guests_cost_their_own_builds_and_nothing_else(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker, spool: Path
) -> None:
    await play(dispatcher, start_worker, spool, SOON)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_hostile_guest_beside_an_honest_one(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker, spool: Path, case: Case
) -> None:
    await play(dispatcher, start_worker, spool, (case,))


@pytest.mark.slow
@pytest.mark.parametrize("case", TASKS, ids=str)
async def test_a_hostile_task_beside_an_honest_guest(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker, spool: Path, case: Case
) -> None:
    await play(dispatcher, start_worker, spool, (case,))


async def test_a_frozen_machine_is_noticed_by_its_silence(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker, spool: Path
) -> None:
    service = await start_worker()
    beat = await proved(dispatcher, 1)
    case = silent("frozen")
    given = grant(beat, f"image: {IMAGE}\ntasks:\n- wait: echo begun; sleep 1000\n", 0, 200)
    await dispatcher.grant(given, ARCH, IMAGE)
    await dispatcher.log_shows("wait", b"begun\n")
    (machine,) = machines(service.pid, spool)
    assert machine.signal(signal.SIGSTOP)
    right_end(case, (await ends(dispatcher, [given], limit=60))[given.grant])
    await until_gone([machine.pid])


async def test_an_artifact_that_is_a_link_is_a_file_of_the_guests(
    dispatcher: DispatcherPlayed, start_worker: StartHostileWorker
) -> None:
    """Links are followed where they are: in the guest."""
    await start_worker()
    beat = await proved(dispatcher, 1)
    task = "echo the guests >/tmp/own; ln -s /tmp/own thing"
    given = grant(beat, f"image: {IMAGE}\ntasks:\n- link: {task}\nartifacts: [thing]\n", 0, 200)
    await dispatcher.grant(given, ARCH, IMAGE)
    ended = (await ends(dispatcher, [given], limit=120))[given.grant]
    assert (ended.result, bytes(dispatcher.artifacts)) == ("success", b"the guests\n")
