"""Every line at which a test may have this service killed (leveret_runtime.failpoints)."""

FAILPOINTS: tuple[str, ...] = (
    "dispatcher.jobs.before-commit",
    "dispatcher.jobs.before-ack",
    "dispatcher.grants.before-commit",
    "dispatcher.grants.between-commit-and-publish",
    "dispatcher.beats.before-commit",
    "dispatcher.beats.between-commit-and-publish",
    "dispatcher.beats.before-ack",
    "dispatcher.status.before-commit",
    "dispatcher.status.between-commit-and-publish",
    "dispatcher.status.before-ack",
    "dispatcher.waits.before-commit",
    "dispatcher.commands.before-commit",
    "dispatcher.commands.between-commit-and-publish",
    "dispatcher.commands.before-ack",
    "dispatcher.dead.before-commit",
    "dispatcher.dead.before-ack",
    "dispatcher.outbox.between-publish-and-sent",
)
