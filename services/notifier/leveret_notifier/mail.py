"""Sends a mail: one SMTP session, encrypted and logged in as configured, within a time limit."""

import asyncio
from pathlib import Path
from typing import Literal
from uuid import UUID

import aiosmtplib

from leveret_notifier.ended import Ended
from leveret_notifier.letter import letter, recipients
from leveret_notifier.outcome import Outcome, Unsendable, failed, judge_recipients, judge_smtp, retrying
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.addresses import Address

#: Seconds for a polite good-bye; the mail is accepted by then.
QUIT_LIMIT = 2.0

Tls = Literal["none", "starttls", "tls"]


class MailSender:
    """Sends through one mail server."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Tls,
        sender: Address,
        login: tuple[str, str] | None = None,
        ca_file: Path | None = None,
        limit: float = 60.0,
    ) -> None:
        """`limit`: seconds for a try. `login`: name and password."""
        self._host = host
        self._port = port
        self._tls = tls
        self._sender = sender
        self._login = login
        self._ca_file = ca_file
        self._limit = limit

    async def send(
        self, ended: Ended, trigger: Trigger, delivery: UUID, remaining: tuple[str, ...] | None, reached: int
    ) -> Outcome:
        """Make one try.

        Args:
            remaining: whom earlier tries neither served nor lost; None for all.
            reached: how many recipients earlier tries served.
        """
        try:
            asked = remaining or recipients(trigger)
            text = letter(ended, trigger, self._sender, delivery).as_bytes()
        except Unsendable as error:
            return failed(str(error))
        client = self._client()
        try:
            async with asyncio.timeout(self._limit):
                try:
                    await client.connect()
                except (aiosmtplib.SMTPException, OSError) as error:
                    # not about this mail: even a refused login may be mended before the last try
                    return retrying("the mail server can't be used now", str(error))
                outcome = await self._submit(client, asked, text, reached)
            await _quit(client)
            return outcome
        except TimeoutError:
            return retrying(f"the mail server took longer than {self._limit:g} s")
        finally:
            client.close()

    def _client(self) -> aiosmtplib.SMTP:
        user, password = self._login or (None, None)
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            # named, because the default asks the resolver, and blocks
            local_hostname=self._sender.address.rpartition("@")[2],
            username=user,
            password=password,
            use_tls=self._tls == "tls",
            start_tls=self._tls == "starttls",
            cert_bundle=str(self._ca_file) if self._ca_file else None,
            timeout=self._limit,
        )

    async def _submit(self, client: aiosmtplib.SMTP, asked: tuple[str, ...], text: bytes, reached: int) -> Outcome:
        try:
            refused, _ = await client.sendmail(self._sender.address, asked, text)
        except aiosmtplib.SMTPRecipientsRefused as error:
            told = {each.recipient: (each.code, each.message) for each in error.recipients}
            return judge_recipients(asked, told, reached)
        except aiosmtplib.SMTPResponseException as error:
            return judge_smtp(error.code, error.message)
        except aiosmtplib.SMTPTimeoutError as error:
            return retrying("the mail server did not answer", str(error))
        except (aiosmtplib.SMTPException, OSError) as error:
            return retrying("the connection to the mail server broke", str(error))
        return judge_recipients(asked, {name: (said.code, said.message) for name, said in refused.items()}, reached)


async def _quit(client: aiosmtplib.SMTP) -> None:
    """End the session; the outcome stands already, so a server that is rude about it changes nothing."""
    try:
        if client.is_connected:
            await client.quit(timeout=QUIT_LIMIT)
    except (aiosmtplib.SMTPException, OSError):
        pass  # as said
