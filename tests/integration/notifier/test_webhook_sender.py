"""One webhook try against servers that do not behave, and names that lead astray."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from leveret_notifier.outcome import ANSWER_LIMIT, Outcome
from leveret_notifier.signing import Signer
from leveret_notifier.webhook import WebhookSender
from leveret_proto.manifest import Trigger
from tests.integration.notifier.conftest import SEED, HttpSink, ended_job

DELIVERY = UUID("0190b8a5-0000-5000-8000-000000000001")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def send(url: str, *, allow_private: bool = True, limit: float = 5.0) -> Outcome:
    sender = WebhookSender(Signer(SEED), allow_private=allow_private, limit=limit, agent="leveret/test")
    trigger = Trigger.model_validate({"action": "webhook", "condition": "always", "url": url})
    return await sender.send(ended_job(7, trigger.model_dump(exclude_none=True)), trigger, DELIVERY)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a server with one handler; gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_a_redirect_is_not_followed(http: HttpSink, serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": http.url()})

    outcome = await send(await serve(elsewhere))
    assert (outcome.status, outcome.detail) == ("failed", "HTTP 307: redirects are not followed")
    assert http.posts == []


async def test_a_server_that_does_not_answer_is_tried_again(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    outcome = await send(await serve(never), limit=0.2)
    assert (outcome.status, outcome.detail) == ("retrying", "no answer within 0.2 s")


async def test_an_endless_answer_is_cut(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 4096)
        except ConnectionError:
            return response

    outcome = await send(await serve(endless))
    assert outcome.status == "delivered"
    assert 0 < len(outcome.answer) <= ANSWER_LIMIT


async def test_retry_after_is_heard(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "90"})

    outcome = await send(await serve(busy))
    assert (outcome.status, outcome.wished) == ("retrying", 90.0)


async def test_nobody_listening_is_tried_again() -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        outcome = await send(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert (outcome.status, outcome.detail) == ("retrying", "no connection")


@pytest.mark.parametrize(
    "url",
    ["", "hook", "ftp://example.org/", "file:///etc/passwd", "http://", "//example.org/", "http://[::1/", "http://a b/",
     "http://example.org:99999/", "http://example.org/\r\nX: y", "http://" + "a" * 3000],
)  # fmt: skip
async def test_what_is_no_web_address_fails_at_once(url: str) -> None:
    assert (await send(url)).status == "failed"


@pytest.mark.parametrize("resolved", [["127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::1"], ["169.254.169.254"]])
async def test_a_name_that_leads_inside_is_refused(
    http: HttpSink, monkeypatch: pytest.MonkeyPatch, resolved: list[str]
) -> None:
    """Judged is what the name leads to at the connect, so a name that changes its mind gains nothing."""
    asked = _resolve_to(monkeypatch, resolved)
    url = f"http://hook.example.org:{http.port}/"
    outcome = await send(url, allow_private=False)
    assert outcome.status == "failed"
    assert "private address" in outcome.detail
    assert asked == ["hook.example.org"] and http.posts == []
    if resolved == ["127.0.0.1"]:
        # the same name gets through where it may, so it was the rule that stopped it
        assert (await send(url, allow_private=True)).status == "delivered"


def _resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    """Have every name lead to `addresses`; the list gets the names that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [_info(address, port) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


def _info(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)
