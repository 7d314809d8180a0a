"""Where a test's mails and webhooks go: an SMTP server and an HTTP server on loopback that remember what came."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

LIMIT = 30.0


@dataclass
class Post:
    """A request the HTTP sink got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def delivery(self) -> str:
        return self.headers["X-Leveret-Delivery"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpSink:
    """Answers with `statuses` in turn, then with 200 for ever."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    arrived: asyncio.Queue[Post] = field(default_factory=asyncio.Queue)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def next(self) -> Post:
        async with asyncio.timeout(LIMIT):
            return await self.arrived.get()

    async def answer(self, request: web.Request) -> web.Response:
        post = Post(request.path, request.headers, await request.read())
        self.posts.append(post)
        self.arrived.put_nowait(post)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="thank you")


@contextlib.asynccontextmanager
async def http_server() -> AsyncIterator[HttpSink]:
    """An HTTP sink on loopback."""
    sink = HttpSink()
    app = web.Application()
    app.router.add_post("/{path:.*}", sink.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sink.port = runner.addresses[0][1]
        yield sink
    finally:
        await runner.cleanup()


@dataclass
class Mail:
    """A mail the SMTP sink took."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    encrypted: bool


@dataclass
class MailSink:
    """An SMTP server. `replies` are given to RCPT of an address instead of 250, one after the other."""

    port: int = 0
    replies: dict[str, list[str]] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    arrived: asyncio.Queue[Mail] = field(default_factory=asyncio.Queue)

    async def next(self) -> Mail:
        async with asyncio.timeout(LIMIT):
            return await self.arrived.get()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.replies.get(address):
            return self.replies[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        read = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(read, EmailMessage)
        mail = Mail(envelope.mail_from or "", list(envelope.rcpt_tos), read, session.ssl is not None)
        self.mails.append(mail)
        self.arrived.put_nowait(mail)
        return "250 taken"


@contextlib.asynccontextmanager
async def smtp_server(
    tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> AsyncIterator[MailSink]:
    """An SMTP sink on loopback; with `tls` it wants STARTTLS, with `login` that name and password."""
    sink = MailSink()

    def authenticate(*args: Any) -> AuthResult:
        given = args[4]
        good = isinstance(given, LoginPassword) and login is not None
        # not handled: the server itself is to say 535
        return AuthResult(success=good and (given.login.decode(), given.password.decode()) == login, handled=False)

    def protocol() -> SMTP:
        secured: dict[str, Any] = {"tls_context": tls, "require_starttls": True} if tls else {}
        if login:
            secured |= {"authenticator": authenticate, "auth_required": True}
        return SMTP(sink, hostname="sink.test", loop=asyncio.get_running_loop(), **secured)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        await server.wait_closed()
