"""The fixtures every integration test stands on: a virtual host and a database of one's own, services as processes."""

import signal

import aio_pika
import asyncpg
import pytest
from aiormq.exceptions import ChannelAccessRefused

from leveret_embedded import ProgramFailedError
from leveret_proto.permissions import worker
from tests.support.databases import Database
from tests.support.services import Services
from tests.support.vhosts import Vhost


@pytest.fixture(params=["first", "second"])
def turn(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_each_test_has_an_empty_virtual_host(vhost: Vhost, turn: str) -> None:
    async with await aio_pika.connect(vhost.url()) as connection:
        channel = await connection.channel()
        await channel.declare_queue("mine", durable=True, passive=False)
        assert [queue["name"] for queue in await vhost.api("GET", f"queues/{vhost.name}")] == ["mine"]


async def test_leverets_accounts_may_do_what_their_role_says_and_no_more(vhost: Vhost) -> None:
    await vhost.provision({"worker-a": worker("a")})
    async with await aio_pika.connect(vhost.url("intake")) as connection:
        channel = await connection.channel()
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("leveret.intake.forged", durable=True)
    async with await aio_pika.connect(vhost.url("worker-a")) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("leveret.submit", ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await exchange.publish(aio_pika.Message(b""), "a.b")


async def test_definitions_for_another_virtual_host_are_refused(vhost: Vhost) -> None:
    with pytest.raises(ValueError, match="other virtual hosts"):
        await vhost.load({"vhosts": [{"name": "/"}]})


async def test_each_test_has_an_empty_database_with_roles(database: Database, turn: str) -> None:
    connection = await asyncpg.connect(database.dsn_for("dispatcher"))
    await connection.execute("CREATE SCHEMA dispatch")
    assert await connection.fetchval("SELECT current_database()") == database.name
    await connection.close()


async def test_a_service_is_awaited_crashed_and_its_log_kept(services: Services) -> None:
    script = services.folder / "sample.py"
    script.write_text(
        "import signal, sys\n"
        "from leveret_runtime.failpoints import failpoint\n"
        "from leveret_runtime.systemd import notify\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('starting', flush=True)\n"
        "if 'fail' in sys.argv: sys.exit(3)\n"
        "notify('READY=1')\n"
        "failpoint('there')\n"
        "signal.sigwait({signal.SIGTERM})\n"
    )
    here = {"PYTHONPATH": str(services.folder)}

    whole = await services.start("sample", here)
    await whole.terminate()
    assert await whole.wait() == 0

    crashing = await services.start("sample", here, failpoint="there", ready=False)
    await crashing.until_crashed()

    with pytest.raises(ProgramFailedError, match=r"status 3.*\n.*starting"):
        await services.start("sample", here, arguments=("fail",))
    assert [text for _, text in services.reports()] == ["starting\n"] * 3

    left = await services.start("sample", here)
    assert left.running
    await left.kill()
    assert await left.wait() == -signal.SIGKILL
