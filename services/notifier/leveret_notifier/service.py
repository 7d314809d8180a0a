"""What the notifier's process connects to, what runs beside what, and in which order it stops."""

import asyncio
from importlib.metadata import version

import structlog

from leveret_notifier.config import NotifierConfig
from leveret_notifier.jobs import APP, consume
from leveret_notifier.mail import MailSender
from leveret_notifier.metrics import sampler
from leveret_notifier.sending import Sending
from leveret_notifier.signing import Signer
from leveret_notifier.webhook import WebhookSender
from leveret_proto.manifest.addresses import addresses
from leveret_proto.topology import NOTIFIER_JOBS, queue
from leveret_runtime.away import keep_going
from leveret_runtime.broker import Consumer, Publisher, connection
from leveret_runtime.db import Database
from leveret_runtime.metrics import sampled
from leveret_runtime.outbox import Outbox, lag
from leveret_runtime.service import ready

log = structlog.get_logger(__name__)

SCHEMA = "notify"


async def serve(config: NotifierConfig, stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    signer = Signer(config.signing_key.get_secret_value())
    log.info("webhooks are signed", public_key=signer.public_key)
    if config.smtp_host is None:
        log.warning("no smtp_host is configured: mail triggers will fail")
    await keep_going(lambda: _with_database(config, signer, stop), stop)


async def _with_database(config: NotifierConfig, signer: Signer, stop: asyncio.Event) -> None:
    """Send what is due, for as long as PostgreSQL stays. RabbitMQ may come and go beside it."""
    async with Database.open(config.database_url, SCHEMA) as database:
        await database.migrate("leveret_notifier")
        outbox = Outbox(database, APP)
        sending = Sending(
            database,
            outbox,
            config.schedule,
            _webhooks(config, signer),
            _mails(config),
            claim_seconds=config.claim_seconds,
            concurrency=config.concurrency,
        )
        sent = asyncio.Event()
        with sampled(sampler(database)), sampled(lag(database)):
            async with asyncio.TaskGroup() as group:
                group.create_task(_send(sending, stop, sent))
                group.create_task(keep_going(lambda: _with_broker(config, database, outbox, sending, stop, sent), stop))


async def _send(sending: Sending, stop: asyncio.Event, sent: asyncio.Event) -> None:
    await sending.run(stop)
    sent.set()


async def _with_broker(
    config: NotifierConfig,
    database: Database,
    outbox: Outbox,
    sending: Sending,
    stop: asyncio.Event,
    sent: asyncio.Event,
) -> None:
    """Take ended jobs until `stop`; publish events until `sent`, so that those of the last deliveries still leave."""
    async with connection(config.amqp_url, "leveret-notifier") as connected:
        publisher = await Publisher.open(connected)
        public = await Publisher.open(connected, confirms=False)
        prefetch = queue(NOTIFIER_JOBS).prefetch
        consumer = await Consumer.open(connected, NOTIFIER_JOBS, prefetch=prefetch, stop=stop)
        ready(lambda: f"taking ended jobs, {sending.under_way} deliveries under way")
        async with asyncio.TaskGroup() as group:
            group.create_task(consume(consumer, database, publisher, sending))
            group.create_task(outbox.run(publisher, public, sent))


def _webhooks(config: NotifierConfig, signer: Signer) -> WebhookSender:
    return WebhookSender(
        signer,
        allow_private=config.allow_private_addresses,
        limit=config.webhook_seconds,
        agent=f"leveret/{version('leveret')}",
    )


def _mails(config: NotifierConfig) -> MailSender | None:
    if config.smtp_host is None or config.mail_from is None:
        return None
    login = None
    if config.smtp_user is not None and config.smtp_password is not None:
        login = (config.smtp_user, config.smtp_password.get_secret_value())
    return MailSender(
        config.smtp_host,
        config.port,
        tls=config.smtp_tls,
        sender=addresses(config.mail_from)[0],
        login=login,
        ca_file=config.smtp_ca_file,
        limit=config.smtp_seconds,
    )
