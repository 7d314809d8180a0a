import json
import re
from collections import Counter
from pathlib import Path

import pytest

from leveret_proto import permissions
from leveret_proto import topology as t
from leveret_proto.definitions import access, definitions, main, shape, template
from leveret_proto.keys import PARTITIONS
from leveret_proto.messages import REGISTRY

NAMES = {exchange.name for exchange in t.EXCHANGES}
#: Answers go through the default exchange, which is nobody's to declare.
REPLIES = {"submission.accepted.v1", "submission.rejected.v1"} | {
    name for name in REGISTRY if name.startswith("reply.")
}


@pytest.mark.parametrize("queue", t.QUEUES, ids=lambda queue: queue.name)
def test_a_queue_is_bound_to_exchanges_that_exist(queue: t.Queue) -> None:
    assert queue.bindings
    assert {exchange for exchange, _ in queue.bindings} <= NAMES
    assert queue.name.startswith(f"leveret.{queue.service}")


def test_every_exchange_but_the_public_ones_is_read_by_a_queue() -> None:
    # sessions and followers bind queues of their own
    bound_later = {t.WORK, t.CONTROL, t.RESEND, t.EVENTS, t.TAIL}
    assert NAMES - {exchange for queue in t.QUEUES for exchange, _ in queue.bindings} == bound_later


def test_every_message_crosses_an_exchange_or_is_an_answer() -> None:
    crossing = {type_ for exchange in t.EXCHANGES for type_ in exchange.messages}
    assert crossing <= REGISTRY.keys()
    assert REGISTRY.keys() - crossing == REPLIES


def test_no_public_exchange_is_on_a_confirmed_path() -> None:
    assert {exchange.name for exchange in t.EXCHANGES if exchange.public} == {t.SUBMIT, t.COMMANDS, t.TAIL, t.EVENTS}
    assert not any(exchange in (t.EVENTS, t.TAIL) for queue in t.QUEUES for exchange, _ in queue.bindings)


def test_names_are_used_once() -> None:
    assert Counter(exchange.name for exchange in t.EXCHANGES).most_common(1)[0][1] == 1
    assert Counter(queue.name for queue in t.QUEUES).most_common(1)[0][1] == 1


DURABLE = {
    "x-queue-type": "quorum",
    "x-max-length-bytes": 256 * t.MIB,
    "x-overflow": "reject-publish",
    "x-delivery-limit": 50,
    "x-dead-letter-exchange": t.DEAD,
    "x-dead-letter-strategy": "at-least-once",
}
PARTITIONED = DURABLE | {"x-max-length-bytes": 64 * t.MIB, "x-single-active-consumer": True}
ARGUMENTS = {
    t.INTAKE_SUBMISSIONS: DURABLE,
    t.DISPATCHER_JOBS: DURABLE,
    t.DISPATCHER_STATUS: DURABLE,
    t.LOGSINK_RECORD: DURABLE,
    t.NOTIFIER_JOBS: DURABLE,
    t.logsink_logs(7): PARTITIONED,
    t.logsink_artifacts(7): PARTITIONED,
    t.DISPATCHER_WORKERS: {
        "x-queue-type": "classic",
        "x-max-length-bytes": 256 * t.MIB,
        "x-overflow": "drop-head",
        "x-message-ttl": 30_000,
    },
    t.DISPATCHER_DEAD: {
        "x-queue-type": "quorum",
        "x-max-length-bytes": 256 * t.MIB,
        "x-overflow": "drop-head",
        "x-delivery-limit": 50,
    },
    t.DISPATCHER_COMMANDS: {
        "x-queue-type": "classic",
        "x-max-length-bytes": 16 * t.MIB,
        "x-overflow": "reject-publish",
        "x-message-ttl": 60_000,
        "x-dead-letter-exchange": t.DEAD,
    },
    t.REPLAY: {
        "x-queue-type": "stream",
        "x-max-length-bytes": 4096 * t.MIB,
        "x-max-age": "30D",
        "x-stream-max-segment-size-bytes": 64 * t.MIB,
    },
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    """A queue that exists can't be declared with others: a change here needs a migration of every installation."""
    expected = dict(ARGUMENTS[name])
    if "x-dead-letter-exchange" in expected:
        expected["x-dead-letter-routing-key"] = name
    assert t.queue(name).arguments() == expected


def test_what_is_dead_lettered_to_nowhere_is_repeated_or_already_dead() -> None:
    assert {queue.name for queue in t.QUEUES if not queue.dead_letter} == {t.DISPATCHER_WORKERS, t.DISPATCHER_DEAD}


def test_every_partition_has_its_queues() -> None:
    for exchange, name in ((t.LOGS, t.logsink_logs), (t.ARTIFACTS, t.logsink_artifacts)):
        for number in range(PARTITIONS):
            queue = t.queue(name(number))
            assert queue.bindings == ((exchange, f"{number:02}.#"),)
            assert queue.single_active
    with pytest.raises(KeyError):
        t.queue(t.logsink_logs(PARTITIONS))


class TestDefinitions:
    """The document that a broker loads. Its form: RabbitMQ's "Schema Definition Export and Import"."""

    def test_the_shape_names_everything_once_and_binds_what_it_names(self) -> None:
        made = shape("v")
        exchanges = {exchange["name"] for exchange in made["exchanges"]}
        queues = {queue["name"] for queue in made["queues"]}
        assert exchanges == NAMES
        assert len(queues) == len(made["queues"]) == len(t.QUEUES)
        for binding in made["bindings"]:
            assert binding["source"] in exchanges
            assert binding["destination"] in queues
        assert all(item["vhost"] == "v" for items in made.values() for item in items)
        assert all(item["durable"] for item in made["exchanges"] + made["queues"])

    def test_users_permissions_and_topic_permissions_hang_together(self) -> None:
        users = {"intake": ("hash-1", permissions.service("intake")), "w1": ("hash-2", permissions.worker("w1"))}
        made = definitions("v", users, {"root": "hash-3"})
        assert made["vhosts"] == [{"name": "v"}]
        assert {user["name"]: user["password_hash"] for user in made["users"]} == {
            "intake": "hash-1", "w1": "hash-2", "root": "hash-3"
        }  # fmt: skip
        assert {user["name"] for user in made["users"] if user["tags"]} == {"root"}
        assert {granted["user"] for granted in made["permissions"]} == {"intake", "w1", "root"}
        topics = {(granted["user"], granted["exchange"]) for granted in made["topic_permissions"]}
        assert topics == {("w1", topic.exchange) for topic in permissions.worker("w1").topics}
        assert {exchange for _, exchange in topics} <= NAMES
        assert json.loads(json.dumps(made)) == made

    def test_whoever_may_not_publish_everything_has_a_grant_on_each_topic_exchange_it_writes_to(self) -> None:
        """Without one, RabbitMQ lets every key pass."""
        outsiders = (permissions.worker("w1"), permissions.submitter(("me",)), permissions.subscriber("r", ("me",)),
                     permissions.operator())  # fmt: skip
        for granted in outsiders:
            guarded = {topic.exchange for topic in granted.topics}
            named = {name for name in NAMES if name.replace(".", "\\.") in granted.write + granted.read}
            assert guarded == named

    def test_an_account_for_nobody_sees_nobodys_jobs(self) -> None:
        reads = {topic.exchange: topic.read for topic in permissions.submitter(()).topics}
        for key in ("job.private.#", "job.private..#", "job.private.*.#", "job.unlisted.a.#"):
            assert not re.search(reads[t.EVENTS], key)
        assert re.search(reads[t.EVENTS], "job.public.a.#")


class TestOperatorsDocuments:
    def test_the_template_in_deploy_is_fresh(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        ours = Path(__file__).parents[3] / "deploy" / "rabbitmq" / "definitions.json"
        assert main(["--check", str(ours)]) == 0
        stale = tmp_path / "definitions.json"
        stale.write_text(ours.read_text().replace("leveret.jobs", "leveret.job"))
        assert main(["--check", str(stale)]) == 1
        assert f"run `python -m leveret_proto.definitions > {stale}`" in capsys.readouterr().err

    def test_it_holds_no_user_and_so_no_password(self) -> None:
        made = template()
        assert "users" not in made
        assert {granted["user"] for granted in made["permissions"]} == set(permissions.SERVICES)

    @pytest.mark.parametrize(
        ("given", "granted"),
        [
            (["--worker", "mill-1"], permissions.worker("mill-1")),
            (["--operator", "root"], permissions.operator()),
            (["--submitter", "forge", "~ada", "~bob"], permissions.submitter(("~ada", "~bob"))),
            (["--subscriber", "board", "~ada"], permissions.subscriber("board", ("~ada",))),
        ],
    )
    def test_an_account(
        self, given: list[str], granted: permissions.Permissions, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--vhost", "v", *given]) == 0
        assert json.loads(capsys.readouterr().out) == access("v", {given[1]: granted})

    def test_owners_for_nobody_are_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        for account in (["--worker", "mill-1"], ["--operator", "root"]):
            with pytest.raises(SystemExit):
                main([*account, "~ada"])
        assert "OWNERs go with" in capsys.readouterr().err
