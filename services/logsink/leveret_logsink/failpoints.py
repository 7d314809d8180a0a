"""The lines at which a test may crash this service (leveret_runtime.failpoints)."""

FAILPOINTS: tuple[str, ...] = (
    "logsink.log.before-commit",
    "logsink.log.between-commit-and-publish",
    "logsink.log.before-ack",
    "logsink.artifact.before-commit",
    "logsink.artifact.between-commit-and-publish",
    "logsink.artifact.before-ack",
    "logsink.record.before-commit",
    "logsink.record.before-ack",
    "logsink.seal.before-commit",
    "logsink.seal.between-commit-and-publish",
    "logsink.compress.before-rename",
    "logsink.compress.before-unlink",
    "logsink.gap.before-commit",
    "logsink.gap.between-commit-and-publish",
    "logsink.outbox.between-publish-and-sent",
)
