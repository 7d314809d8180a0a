"""What a service's monitor says: its probes, and its metrics as numbers."""

import asyncio
import json
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from leveret_runtime import metrics
from tests.support.services import Service

LIMIT = 20.0


@dataclass(frozen=True)
class Page:
    """The samples of one look."""

    samples: list[tuple[str, dict[str, str], float]]

    @classmethod
    def read(cls, text: str) -> "Page":
        """Read a page in Prometheus' text format. A name that is told of twice is a fault of the page."""
        families = list(text_string_to_metric_families(text))
        names = [family.name for family in families]
        assert len(names) == len(set(names)), f"told of twice: {sorted(names)}"
        return cls([(s.name, s.labels, s.value) for family in families for s in family.samples])

    def has(self, name: str, **labels: str) -> bool:
        return any(True for _ in self._of(name, labels))

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels among theirs; 0 where there are none."""
        return sum(self._of(name, labels))

    def _of(self, name: str, labels: dict[str, str]) -> list[float]:
        return [value for given, its, value in self.samples if given == name and labels.items() <= its.items()]


async def own_page() -> Page:
    """A look at this very process."""
    body, _ = await metrics.page("")
    return Page.read(body.decode())


@dataclass(frozen=True)
class Monitor:
    """A service's monitor at `url`."""

    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def page(self) -> Page:
        status, text = await self.get("/metrics")
        assert status == 200
        return Page.read(text)

    async def until_ready(self, status: int = 200) -> str:
        """Ask until `/ready` answers with `status`; give what it says."""
        async with asyncio.timeout(LIMIT):
            while True:
                answered, text = await self.get("/ready")
                if answered == status:
                    return text
                await asyncio.sleep(0.02)


def monitor_of(service: Service, session: aiohttp.ClientSession) -> Monitor:
    """The monitor of a service that was started with `monitor_port` 0, as its log says."""
    for line in service.log.read_text().splitlines():
        if line.startswith("{") and json.loads(line).get("event") == "monitor":
            return Monitor(json.loads(line)["url"], session)
    raise AssertionError(f"{service.log} has no line `monitor`")
