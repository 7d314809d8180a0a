"""The dispatcher's configuration: what holds for all owners, for one, and how each is written."""

import pytest

from leveret_dispatcher.config import Config
from leveret_runtime.config import ConfigError, load


def configured(monkeypatch: pytest.MonkeyPatch, **keys: str) -> Config:
    needed = {"amqp_url": "amqp://a@localhost/v", "database_url": "postgresql://a@localhost/d"}
    for key, value in (needed | keys).items():
        monkeypatch.setenv(f"LEVERET_DISPATCHER_{key.upper()}", value)
    return load(Config, None)


def test_an_owner_without_a_word_has_what_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(monkeypatch)
    assert config.running_limit("~alice") is None
    assert config.owner_time_limit("~alice", None) == config.time_limit == 45 * 60
    assert config.owner_time_limit("~alice", 1e6) == config.time_limit_most
    assert config.queue_deadline == 7 * 24 * 3600
    assert configured(monkeypatch, owner_running="3").running_limit("~alice") == 3


def test_the_environment_gives_owners_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = """{"~alice": {"running": 0, "time_limit": 60}, "~bob": {"running": null, "time_limit_most": 99999999},
                 "~carol": {"time_limit_most": 30}}"""
    config = configured(monkeypatch, owner_running="3", owners=owners)
    limits = [config.running_limit(owner) for owner in ("~alice", "~bob", "~carol", "~dave")]
    assert limits == [0, None, 3, 3]  # written out, null is no limit
    assert config.owner_time_limit("~alice", None) == 60
    assert config.owner_time_limit("~alice", 61) == 61
    assert config.owner_time_limit("~bob", 1e6) == config.time_limit_most  # never above the installation's
    assert config.owner_time_limit("~carol", None) == 30


@pytest.mark.parametrize(
    ("owners", "told"),
    [
        ('{"~alice": {"limit": 1}}', "owners.~alice.limit: there is no such key; did you mean 'time_limit'"),
        ('{"~alice": {"running": -1}}', "owners.~alice.running: Input should be greater than or equal to 0"),
        ("~alice", "owners"),
    ],
)
def test_what_it_can_not_use_it_refuses_by_name(monkeypatch: pytest.MonkeyPatch, owners: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        configured(monkeypatch, owners=owners)
