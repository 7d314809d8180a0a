"""One mail try: encrypted, logged in, and against servers that are not there."""

import asyncio
import shutil
import socket
import ssl
from pathlib import Path
from uuid import UUID

import pytest

from leveret_notifier.mail import MailSender
from leveret_notifier.outcome import Outcome
from leveret_proto.manifest import Trigger
from leveret_proto.manifest.addresses import Address
from tests.integration.notifier.conftest import LIMIT, MailSink, ended_job, smtp_server

DELIVERY = UUID("0190b8a5-0000-5000-8000-000000000001")
SENDER = Address("Leveret", "leveret@builds.example.org")
TRIGGER = Trigger(action="email", condition="always", to="bob@example.org")


async def send(mails: MailSender) -> Outcome:
    return await mails.send(ended_job(7), TRIGGER, DELIVERY, None, 0)


@pytest.fixture
async def certificate(tmp_path: Path) -> Path:
    """A PEM file with a certificate for 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    process = await asyncio.create_subprocess_exec(
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=sink", "-addext", "subjectAltName=IP:127.0.0.1",
        "-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-keyout", key, "-out", made,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0
    made.write_text(made.read_text() + key.read_text())
    return made


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_starttls_and_login(certificate: Path) -> None:
    async with smtp_server(server_side(certificate), ("leveret", "s3cret")) as sink:
        login = ("leveret", "s3cret")
        mails = MailSender(
            "127.0.0.1", sink.port, tls="starttls", sender=SENDER, login=login, ca_file=certificate, limit=5
        )
        assert (await send(mails)).status == "delivered"
        assert (await sink.next()).encrypted


async def test_a_wrong_password_is_tried_again_and_not_published(certificate: Path) -> None:
    async with smtp_server(server_side(certificate), ("leveret", "s3cret")) as sink:
        login = ("leveret", "wrong")
        mails = MailSender(
            "127.0.0.1", sink.port, tls="starttls", sender=SENDER, login=login, ca_file=certificate, limit=5
        )
        outcome = await send(mails)
    assert (outcome.status, outcome.detail) == ("retrying", "the mail server can't be used now")
    assert "535" in outcome.answer or "uthentication" in outcome.answer


async def test_a_certificate_nobody_vouches_for_gets_no_mail(certificate: Path) -> None:
    async with smtp_server(server_side(certificate)) as sink:
        mails = MailSender("127.0.0.1", sink.port, tls="starttls", sender=SENDER, limit=5)
        outcome = await send(mails)
    assert outcome.status == "retrying"
    assert "certificate" in outcome.answer.lower()
    assert sink.mails == []


async def test_a_server_without_starttls_gets_no_mail_in_the_clear(smtp: MailSink) -> None:
    outcome = await send(MailSender("127.0.0.1", smtp.port, tls="starttls", sender=SENDER, limit=5))
    assert outcome.status == "retrying"
    assert smtp.mails == []


async def test_a_server_that_is_away_is_tried_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        outcome = await send(MailSender("127.0.0.1", bound.getsockname()[1], tls="none", sender=SENDER, limit=5))
    assert outcome.status == "retrying"


async def test_a_server_that_says_nothing_is_tried_again() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        outcome = await send(MailSender("127.0.0.1", silent.getsockname()[1], tls="none", sender=SENDER, limit=0.2))
    assert outcome.status == "retrying"


async def test_a_mail_that_nobody_may_get_fails_at_once(smtp: MailSink) -> None:
    smtp.replies = {"bob@example.org": ["550 no such bob"]}
    outcome = await send(MailSender("127.0.0.1", smtp.port, tls="none", sender=SENDER, limit=5))
    assert (outcome.status, outcome.detail) == ("failed", "1 of 1 recipients refused")
    assert "no such bob" in outcome.answer


async def test_a_list_that_is_none_fails_before_any_server_is_asked() -> None:
    mails = MailSender("mail.invalid", 25, tls="none", sender=SENDER, limit=5)
    trigger = TRIGGER.model_copy(update={"to": "not an address"})
    outcome = await mails.send(ended_job(7), trigger, DELIVERY, None, 0)
    assert (outcome.status, outcome.detail) == ("failed", "the trigger's to is not a list of mail addresses")
