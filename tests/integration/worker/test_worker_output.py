"""What a build prints arrives byte for byte, whatever it is."""

import platform

from tests.support import odd_output
from tests.support.dispatcher_played import DispatcherPlayed, StartWorker, make_grant


async def test_odd_output_is_published_byte_for_byte(dispatcher: DispatcherPlayed, start_worker: StartWorker) -> None:
    await start_worker()
    grant = make_grant(await dispatcher.beat(), odd_output.manifest("test/process"))
    await dispatcher.grant(grant, platform.machine())
    ended = await dispatcher.status("ended")
    assert (ended.result, ended.detail) == ("success", None)
    await odd_output.check(dispatcher)
