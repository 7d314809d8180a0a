"""Every line at which a test may have the worker killed (leveret_runtime.failpoints)."""

FAILPOINTS: tuple[str, ...] = (
    "worker.grant.spooled",
    "worker.grant.before-ack",
    "worker.build.started",
    "worker.task.moved",
    "worker.result.spooled",
    "worker.status.sent",
)
