"""Whether this host can confine machines: a chroot or container may forbid it, and then nothing can be shown of it."""

import asyncio
from functools import cache

import pytest

from leveret_worker.qemu import CageRules, Cages, Network


@cache
def lacks() -> str | None:
    """What this host lacks for whole cages; None where it has all."""

    async def refusal() -> str | None:
        async with Cages(CageRules(network=Network.NONE, required=True)) as cages:
            return cages.refusal

    return asyncio.run(refusal())


#: For tests of what whole cages do.
whole = pytest.mark.skipif(lacks() is not None, reason=f"this host can't confine: {lacks()}")
