"""Sends a webhook: one POST on a connection of its own, to an address the policy allows, within a time limit."""

import asyncio
import socket
from uuid import UUID

import aiohttp
import structlog
import yarl

from leveret_notifier.address_policy import is_public
from leveret_notifier.ended import Ended, status
from leveret_notifier.outcome import ANSWER_LIMIT, Outcome, failed, judge_http, retrying
from leveret_notifier.payload import payload
from leveret_notifier.signing import Signer, new_nonce
from leveret_proto.manifest import Trigger
from leveret_proto.messages import EndedJob

log = structlog.get_logger(__name__)

MAX_URL = 2048

_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


class RefusedAddressError(OSError):
    """The policy does not let webhooks reach this address."""


class Gate:
    """Makes the sockets of one try, each only for an address that is allowed.

    It stands at the connect itself: whatever a name resolves to, and however an address is written in the URL, the
    address seen here is the one the kernel would connect to.
    """

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.refused = 0
        self.opened = 0

    def socket(self, info: _AddressInfo) -> socket.socket:
        """Make a socket for `info`, as `getaddrinfo` gives it. Raises RefusedAddressError."""
        family, kind, protocol, _, address = info
        if not self._allow_private and not is_public(str(address[0])):
            self.refused += 1
            raise RefusedAddressError(f"{address[0]} is not a public address")
        self.opened += 1
        return socket.socket(family, kind, protocol)


class WebhookSender:
    """Posts signed payloads."""

    def __init__(self, signer: Signer, *, allow_private: bool, limit: float, agent: str) -> None:
        """`limit`: seconds for a try from the name's look-up to the answer's end. `agent`: the User-Agent."""
        self._signer = signer
        self._allow_private = allow_private
        self._limit = limit
        self._agent = agent

    async def send(self, ended: Ended, trigger: Trigger, delivery: UUID) -> Outcome:
        """Make one try."""
        url = _url(trigger.url)
        if url is None:
            return failed("the trigger's url is no http or https URL")
        body = payload(ended)
        headers = self._signer.headers(body, new_nonce()) | {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "X-Leveret-Delivery": str(delivery),
            "X-Leveret-Event": f"{'job' if isinstance(ended, EndedJob) else 'group'}.{status(ended)}",
        }
        gate = Gate(self._allow_private)
        try:
            async with asyncio.timeout(self._limit):
                return await _post(url, body, headers, gate)
        except TimeoutError:
            return retrying(f"no answer within {self._limit:g} s")
        except (aiohttp.InvalidURL, UnicodeError) as error:
            return failed("the trigger's url can't be used", str(error))
        except (aiohttp.ClientError, OSError) as error:
            if gate.refused and not gate.opened:
                told = "the url leads to a private address, which this installation does not allow"
                return failed(told, str(error))
            return retrying(_told(error), str(error))


async def _post(url: yarl.URL, body: bytes, headers: dict[str, str], gate: Gate) -> Outcome:
    connector = aiohttp.TCPConnector(socket_factory=gate.socket, use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
    ) as session:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            # the status decides; of the body no more is read than is kept
            said = (await response.content.read(ANSWER_LIMIT)).decode(errors="replace")
            return judge_http(response.status, said, response.headers.get("Retry-After"))


def _url(text: str | None) -> yarl.URL | None:
    """Read an absolute http or https URL; None where it is none."""
    if not text or len(text) > MAX_URL or not text.isprintable() or " " in text:
        return None
    try:
        url = yarl.URL(text)
        return url if url.scheme in ("http", "https") and url.host and url.port else None
    except ValueError:
        return None


def _told(error: Exception) -> str:
    """Say what went wrong without the host's name or address, for the public event."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case _:
            return "the connection broke"
