"""What a build in a real guest prints arrives byte for byte, whatever it is."""

from pathlib import Path

import pytest

from tests.support import odd_output
from tests.support.dispatcher_played import DispatcherPlayed, make_grant
from tests.support.guest_images import stored_image
from tests.support.lone_worker import lone_worker
from tests.support.services import Services
from tests.support.vhosts import Vhost

pytestmark = [pytest.mark.vm, pytest.mark.image("test/minimal"), pytest.mark.timeout(300)]

IMAGE = "test/minimal"


async def test_odd_output_of_a_guest_is_published_byte_for_byte(
    dispatcher: DispatcherPlayed, vhost: Vhost, services: Services, tmp_path: Path
) -> None:
    images = stored_image(IMAGE).store.root
    given = lone_worker(vhost, tmp_path / "spool", images=images, network="none", templates_ahead=False)
    await services.start("leveret_worker.main", given)
    beat = await dispatcher.beat()
    while not any(image.name == IMAGE for image in beat.capabilities.images):
        beat = await dispatcher.beat()
    grant = make_grant(beat, odd_output.manifest(IMAGE), time_limit=200)
    await dispatcher.grant(grant, "x86_64", IMAGE)
    ended = await dispatcher.status("ended", limit=250)
    assert (ended.result, ended.detail) == ("success", None)
    await odd_output.check(dispatcher)
