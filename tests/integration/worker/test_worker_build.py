"""A build's life on the process executor: what a task sees, how each end says which it was."""

import platform
import socket
from collections.abc import Awaitable, Callable

import pytest

from leveret_proto.messages import AttemptStatus
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant

#: Runs the tasks (and whatever keys come after them), and gives how that ended.
Run = Callable[..., Awaitable[AttemptStatus]]


@pytest.fixture
async def run(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> Run:
    async def run(rest: str, environment: dict[str, str] | None = None, **given: object) -> AttemptStatus:
        await start_worker(LEVERET_WORKER_KILL_AFTER="1", **(environment or {}))
        beat = await dispatcher.beat(beat=1)
        grant = make_grant(beat, f"image: test/process\n{rest}", **given)
        await dispatcher.grant(grant, platform.machine())
        return await dispatcher.status("ended")

    return run


def tasks(ended: AttemptStatus) -> list[tuple[str, int | None]]:
    return [(task.state, task.exit_status) for task in ended.tasks]


# --- what a task sees ---


async def test_a_task_has_a_terminal_to_write_to_and_nobody_to_ask(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run(r"""
tasks:
- look: |
    set +x
    for fd in 0 1 2; do test -t $fd && echo "$fd yes" || echo "$fd no"; done
    stty size <&1
    echo "$TERM $PAGER"
    read line || echo "no input"
    (: </dev/tty) 2>/dev/null || echo "nobody to ask"
    printf 'one\r\ntwo\n\ttab\001\004\n' >&2
""")
    assert ended.result == "success"
    expected = b"0 no\n1 yes\n2 yes\n24 80\nxterm cat\nno input\nnobody to ask\none\r\ntwo\n\ttab\1\4\n"
    assert await dispatcher.log("look") == b"+ set +x\n" + expected


async def test_what_one_task_starts_serves_the_next(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run("""
tasks:
- start: |
    sleep 1000 &
    echo $! >pid
- use: kill -0 $(cat pid)
""")
    assert tasks(ended) == [("success", 0), ("success", 0)]


async def test_complete_build_counts_wherever_it_is_called(run: Run) -> None:
    ended = await run("""
tasks:
- check: |
    bash -ec '. ~/.buildenv; complete-build; false'
    echo "the rest of this task still runs" >seen
- skipped: 'false'
artifacts: [seen]
""")
    assert (ended.result, ended.reason) == ("success", "completed")
    assert tasks(ended) == [("success", 0), ("skipped", None)]
    assert [artifact.name for artifact in ended.artifacts] == ["seen"]


async def test_exit_status_255_is_a_failure_like_any_other(run: Run) -> None:
    """It is what a failing ssh gives."""
    ended = await run("tasks:\n- deploy: exit 255\n- never: 'true'\n")
    assert (ended.result, ended.reason) == ("failed", "task-failed")
    assert tasks(ended) == [("failed", 255), ("skipped", None)]


async def test_a_mark_that_somebody_else_wrote_completes_nothing(run: Run) -> None:
    ended = await run(
        "tasks:\n- one: echo 10 >.complete-build\n- two: rm .complete-build; mkdir .complete-build\n- three: 'true'\n"
    )
    assert tasks(ended) == [("success", 0)] * 3


async def test_a_death_by_signal_is_128_more(run: Run) -> None:
    ended = await run("tasks:\n- one: kill -SEGV $$\n")
    assert (ended.reason, tasks(ended)) == ("task-failed", [("failed", 128 + 11)])


async def test_a_task_whose_script_is_gone_fails(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run("tasks:\n- one: rm -r ~/.tasks\n- two: 'true'\n")
    assert (ended.result, ended.reason) == ("failed", "task-failed")
    assert tasks(ended) == [("success", 0), ("failed", None)]
    assert "task two can't be started" in (ended.detail or "")
    assert b"this task can't be started" in await dispatcher.log("two")


async def test_artifacts_are_taken_by_their_literal_paths_and_one_that_is_missing_costs_no_other(
    dispatcher: DispatcherPlayed, run: Run
) -> None:
    ended = await run("tasks:\n- one: echo two >c; ln -s c b\nartifacts: ['~/a', /etc/hostname, b]\n")
    assert (ended.result, ended.reason) == ("failed", "artifact-failed")
    assert (ended.detail or "").startswith("artifact ~/a: ")
    assert "'~' is taken literally" in (ended.detail or "")
    assert [(artifact.path, artifact.name) for artifact in ended.artifacts] == [
        ("/etc/hostname", "hostname"),
        ("b", "b"),
    ]
    assert ended.artifacts[1].bytes == len("two\n")


async def test_without_tasks_the_job_is_set_up_and_succeeds(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run("shell: true\n")
    assert (ended.result, ended.tasks) == ("success", ())
    assert b"job 7, attempt 1" in await dispatcher.log("@setup")


async def test_what_no_command_line_takes_fails_the_setup(run: Run) -> None:
    ended = await run("sources: [\"https://git.example.org/a\\0b\"]\ntasks:\n- one: 'true'\n")
    assert (ended.result, ended.reason) == ("failed", "setup-failed")
    assert "NUL" in (ended.detail or "")


# --- time limits ---

LAST_WORDS = """
    trap 'echo last words; exit 0' TERM
    echo waiting
    sleep 1000 & wait
"""
STUBBORN = """
    trap '' TERM
    echo waiting
    while true; do sleep 1000 || true; done
"""


async def test_a_task_at_its_limit_may_say_its_last_words(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run(
        f"tasks:\n- one: 'true'\n- two: |{LAST_WORDS}- three: 'true'\n"
        "artifacts: [.buildenv]\nleveret: {task_time_limit: 2, artifacts_on: always}\n"
    )
    assert (ended.result, ended.reason) == ("timeout", "task-time-limit")
    assert ended.detail == "task two's time limit of 2 s is over: SIGTERM ended it"
    assert tasks(ended) == [("success", 0), ("failed", 0), ("skipped", None)]
    assert (await dispatcher.log("two")).endswith(
        b"last words\n++ exit 0\n[leveret] task two's time limit of 2 s is over: SIGTERM ended it\n"
    )
    # the job still has time for its artifacts
    assert [artifact.name for artifact in ended.artifacts] == [".buildenv"]


async def test_a_task_that_does_not_heed_its_limit_is_killed(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run(f"tasks:\n- one: |{STUBBORN}leveret: {{task_time_limit: 1}}\n")
    assert (ended.result, ended.reason) == ("timeout", "task-time-limit")
    assert ended.detail == "task one's time limit of 1 s is over: SIGTERM did not end it within 1 s, SIGKILL did"
    assert tasks(ended) == [("failed", 128 + 9)]
    assert b"waiting\n" in await dispatcher.log("one")


async def test_a_job_at_its_limit_ends_with_a_whole_log_and_no_artifacts(
    dispatcher: DispatcherPlayed, run: Run
) -> None:
    ended = await run(
        f"tasks:\n- one: |{LAST_WORDS}- two: 'true'\nartifacts: [.buildenv]\nleveret: {{artifacts_on: always}}\n",
        time_limit=1.5,
    )
    assert (ended.result, ended.reason) == ("timeout", "time-limit")
    assert ended.detail == "the job's time limit of 1.5 s is over: SIGTERM ended it"
    assert tasks(ended) == [("failed", 0), ("skipped", None)]
    assert b"last words\n" in await dispatcher.log("one")
    assert ended.artifacts == ()


async def test_a_jobs_limit_counts_during_its_setup(dispatcher: DispatcherPlayed, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"git://127.0.0.1:{silent.getsockname()[1]}/project"
        ended = await run(f"sources: ['{address}']\ntasks:\n- one: 'true'\n", time_limit=2)
    assert (ended.result, ended.reason) == ("timeout", "time-limit")
    assert tasks(ended) == [("skipped", None)]
    assert b"setup failed: the job's time limit of 2 s is over" in await dispatcher.log("@setup")


async def test_the_installation_bounds_what_a_task_may_take(run: Run) -> None:
    ended = await run(
        "tasks:\n- one: sleep 1000\nleveret: {task_time_limit: 1h}\n", {"LEVERET_WORKER_TASK_TIME_LIMIT_MOST": "1"}
    )
    assert (ended.reason, ended.detail) == ("task-time-limit", "task one's time limit of 1 s is over: SIGTERM ended it")


async def test_an_agent_that_ends_is_not_called_anything_else(dispatcher: DispatcherPlayed, run: Run) -> None:
    ended = await run("tasks:\n- one: kill -KILL $PPID; sleep 1000\n")
    assert (ended.result, ended.reason) == ("failed", "agent-gone")
    assert tasks(ended) == [("failed", None)]
    await dispatcher.log("one")  # whole, as far as it came
