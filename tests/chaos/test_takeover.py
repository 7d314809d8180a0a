"""How long no dispatcher leads, with the settings that installations have: from the signal to the next grant."""

import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from leveret_dispatcher.config import Config
from leveret_proto.messages import JobStatus, Report
from leveret_proto.permissions import worker
from tests.integration.dispatcher.dispatcher_lab import Lab, held, open_lab, token
from tests.support.databases import Database
from tests.support.services import Services
from tests.support.vhosts import Vhost

MODULE = "leveret_dispatcher.main"
#: What an installation gets that says nothing about these.
DEFAULTS = {
    key: Config.model_fields[key].default for key in ("lease", "canary", "leader_renew", "leader_stale", "standby_look")
}


@pytest.fixture
async def lab(vhost: Vhost, database: Database) -> AsyncIterator[Lab]:
    await vhost.provision({"w1": worker("w1"), "w2": worker("w2")})
    async with open_lab(vhost, database) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(("ends_by", "limit"), [(signal.SIGTERM, 5.0), (signal.SIGKILL, 20.0), (signal.SIGSTOP, 20.0)])
async def test_a_standby_grants_soon_after_the_leader_has_ended_or_frozen(
    lab: Lab, services: Services, ends_by: signal.Signals, limit: float
) -> None:
    assert (DEFAULTS["leader_renew"], DEFAULTS["leader_stale"]) == (5, 15)
    environment = lab.environment(**DEFAULTS, heartbeat=Config.model_fields["heartbeat"].default)
    leader = await services.start(MODULE, environment)
    async with lab.worker() as worker:
        await worker.beat(token())
        running = await worker.grant_of(await lab.submit())
        await worker.run(running)
        await services.start(MODULE, environment)
        ended = time.monotonic()
        os.kill(leader.pid, ends_by)
        waiting = await lab.submit()
        await worker.inbox.until(Report)
        await worker.beat(token(), held=(held(running),))
        granted = await worker.grant_of(waiting)
        took = time.monotonic() - ended
        assert granted.epoch == 2
        assert took < limit, f"{took:.1f} s"
        for grant in (running, granted):
            await worker.succeed(grant)
            await lab.job_is(grant.facts.job, JobStatus.SUCCESS)
            assert lab.course(grant.facts.job)[-1] == "success"
        await leader.kill()  # a frozen one hears no SIGTERM
