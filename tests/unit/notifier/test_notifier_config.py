"""The notifier's configuration: what is refused, and why."""

from pathlib import Path

import pytest

from leveret_notifier.config import NotifierConfig
from leveret_notifier.signing import new_seed
from leveret_runtime.config import ConfigError, DatabaseConfig, load

SEED = new_seed()


def configured(monkeypatch: pytest.MonkeyPatch, **keys: str) -> NotifierConfig:
    needed = {"amqp_url": "amqp://a@localhost/v", "database_url": "postgresql://a@localhost/d", "signing_key": SEED}
    for key, value in (needed | keys).items():
        monkeypatch.setenv(f"LEVERET_NOTIFIER_{key.upper()}", value)
    return load(NotifierConfig, None)


def test_the_defaults_are_those_of_the_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch)
    assert config.allow_private_addresses is False
    assert (config.schedule.first, config.schedule.longest, config.schedule.tries) == (10, 14400, 15)
    assert config.claim_seconds == 75
    manual = Path(__file__).parents[3].joinpath("docs/notifications.md").read_text()
    missing = [key for key in NotifierConfig.model_fields if f"`{key}`" not in manual]
    assert missing == list(DatabaseConfig.model_fields)  # those of every service


@pytest.mark.parametrize(("tls", "port"), [("none", 25), ("starttls", 587), ("tls", 465)])
def test_the_port_goes_with_the_encryption(monkeypatch: pytest.MonkeyPatch, tls: str, port: int) -> None:
    assert configured(monkeypatch, smtp_tls=tls).port == port


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"signing_key": "c2hvcnQ="}, "signing_key: .*5 bytes"),
        ({"smtp_host": "mail.example.org"}, "smtp_host needs mail_from"),
        ({"mail_from": "nobody"}, "mail_from: .*not a mail address"),
        ({"mail_from": "a@b.example, c@d.example"}, "mail_from: .*one sender"),
        ({"smtp_user": "u"}, "go together"),
        ({"smtp_user": "u", "smtp_password": "p", "smtp_tls": "none"}, "in the clear"),
    ],
)
def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        configured(monkeypatch, **keys)
