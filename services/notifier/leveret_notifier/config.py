"""What the notifier is told: environment `LEVERET_NOTIFIER_<KEY>`, credential files, YAML."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from leveret_notifier.schedule import Schedule
from leveret_notifier.signing import Signer
from leveret_proto.manifest.addresses import addresses
from leveret_runtime.config import DatabaseConfig

#: Default ports of mail submission (RFC 6409, RFC 8314) and of a relay.
_PORTS = {"none": 25, "starttls": 587, "tls": 465}


class NotifierConfig(DatabaseConfig):
    """The notifier's configuration."""

    SERVICE: ClassVar[str] = "notifier"

    signing_key: SecretStr = Field(
        description="Ed25519 key that signs webhooks: base64 of 32 random bytes; leveret-notifier --new-key makes one"
    )
    allow_private_addresses: bool = Field(
        False, description="let webhooks reach private, loopback and link-local addresses"
    )
    webhook_seconds: float = Field(10.0, gt=0, le=300, description="time limit of one webhook, in seconds")

    smtp_host: str | None = Field(None, description="mail server; without one, mail triggers fail")
    smtp_port: int | None = Field(None, ge=1, le=65535, description="default: 587 starttls, 465 tls, 25 none")
    smtp_tls: Literal["none", "starttls", "tls"] = Field("starttls", description="how the connection is encrypted")
    smtp_ca_file: Path | None = Field(None, description="PEM file of the authorities to trust besides the system's")
    smtp_user: str | None = Field(None, description="login name; none: no login")
    smtp_password: SecretStr | None = Field(None, description="login password")
    smtp_seconds: float = Field(60.0, gt=0, le=600, description="time limit of one mail, in seconds")
    mail_from: str | None = Field(None, description="the sender: address, or Name <address>")

    retry_first_seconds: float = Field(10.0, gt=0, le=3600, description="delay after the first try; each next is 4 x")
    retry_longest_seconds: float = Field(14400.0, gt=0, le=86400, description="the longest delay")
    retry_tries: int = Field(15, ge=1, le=100, description="tries until a delivery is given up (15: about 40 hours)")
    claim_margin_seconds: float = Field(
        15.0, gt=0, le=600, description="how long after a try's time limit it counts as dead and is repeated"
    )
    concurrency: int = Field(16, ge=1, le=256, description="deliveries sent at the same time")

    @field_validator("signing_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        Signer(value.get_secret_value())
        return value

    @field_validator("mail_from")
    @classmethod
    def _check_sender(cls, value: str | None) -> str | None:
        if value is not None and len(addresses(value)) != 1:
            raise ValueError("one sender, please")
        return value

    @model_validator(mode="after")
    def _check_mail(self) -> Self:
        if self.smtp_host is not None and self.mail_from is None:
            raise ValueError("smtp_host needs mail_from")
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("smtp_user and smtp_password go together")
        if self.smtp_user is not None and self.smtp_tls == "none":
            raise ValueError("smtp_tls: none would send the password in the clear")
        return self

    @property
    def port(self) -> int:
        """The mail server's port."""
        return self.smtp_port or _PORTS[self.smtp_tls]

    @property
    def schedule(self) -> Schedule:
        """When deliveries are tried again."""
        return Schedule(self.retry_first_seconds, self.retry_longest_seconds, self.retry_tries)

    @property
    def claim_seconds(self) -> float:
        """Seconds after a try's beginning when it counts as dead."""
        return max(self.smtp_seconds, self.webhook_seconds) + self.claim_margin_seconds
