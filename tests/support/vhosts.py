"""A virtual host per test on the session's broker, made and removed through its management API."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp

from leveret_proto.definitions import definitions
from leveret_proto.permissions import SERVICES, Permissions, service
from leveret_runtime.rabbit_password import password_hash

_API_LIMIT = aiohttp.ClientTimeout(total=60)


class BrokerRefusedError(AssertionError):
    """The management API answered with an error."""


@dataclass(frozen=True)
class TestBroker:
    """The session's broker: an administrator's AMQP URL and the base URL of its management API."""

    __test__ = False  # not a class of tests, whatever its name begins with

    url: str
    api: str

    @property
    def administrator(self) -> tuple[str, str]:
        parts = urlsplit(self.url)
        return unquote(parts.username or "guest"), unquote(parts.password or "guest")


@dataclass(frozen=True)
class Vhost:
    """A test's own virtual host. `admin` may do everything in it; other users come with `load` or `provision`."""

    broker: TestBroker
    name: str
    _session: aiohttp.ClientSession

    def password(self, user: str) -> str:
        """The password of a test's user: one for each name, as users are shared by all virtual hosts of a broker."""
        name, secret = self.broker.administrator
        if user in ("admin", name):
            return secret
        return hashlib.sha256(f"{secret}/{user}".encode()).hexdigest()[:32]

    def url(self, user: str = "admin") -> str:
        """`amqp://` URL of this virtual host for `user`."""
        parts = urlsplit(self.broker.url)
        name = self.broker.administrator[0] if user == "admin" else user
        account = f"{quote(name, safe='')}:{quote(self.password(user), safe='')}"
        return f"amqp://{account}@{parts.hostname}:{parts.port or 5672}/{quote(self.name, safe='')}"

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """Calls the management API, `path` without its `/api/`; gives the decoded answer or None.

        Raises BrokerRefusedError for an error status.
        """
        url = f"{self.broker.api}/api/{path}"
        async with self._session.request(method, url, json=body) as response:
            if response.status >= 400:
                raise BrokerRefusedError(f"{method} {path}: {response.status} {await response.text()}")
            return (
                await response.json()
                if response.content_type == "application/json" and response.status != 204
                else None
            )

    async def load(self, document: Mapping[str, Any]) -> None:
        """Loads a definitions document, which may name no other virtual host. Users take `password` by their hash."""
        named = {vhost["name"] for vhost in document.get("vhosts", ())}
        for items in document.values():
            named |= {item["vhost"] for item in items if isinstance(item, Mapping) and "vhost" in item}
        if named - {self.name}:
            raise ValueError(f"definitions for {self.name} name other virtual hosts: {sorted(named - {self.name})}")
        await self.api("POST", "definitions", dict(document))

    async def provision(self, users: Mapping[str, Permissions] | None = None) -> None:
        """Loads Leveret's exchanges, queues and bindings, with the four central services and `users` as accounts."""
        accounts = {name: service(name) for name in SERVICES} | dict(users or {})
        hashed = {name: (password_hash(self.password(name)), granted) for name, granted in accounts.items()}
        await self.load(definitions(self.name, hashed))


@asynccontextmanager
async def new_vhost(broker: TestBroker) -> AsyncIterator[Vhost]:
    """A virtual host for the length of the block."""
    name = f"test-{secrets.token_hex(6)}"
    user, password = broker.administrator
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {login}"}
    async with aiohttp.ClientSession(headers=headers, timeout=_API_LIMIT) as session:
        vhost = Vhost(broker, name, session)
        await vhost.api("PUT", f"vhosts/{name}", {})
        try:
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            await vhost.api("PUT", f"permissions/{name}/{quote(user, safe='')}", everything)
            yield vhost
        finally:
            await vhost.api("DELETE", f"vhosts/{name}")
