"""The lines at which a test may have the notifier killed (leveret_runtime.failpoints)."""

JOB_BEFORE_COMMIT = "notifier.job.before-commit"
JOB_BEFORE_ACK = "notifier.job.before-ack"
DELIVERY_BEFORE_SEND = "notifier.delivery.before-send"
#: The other end has answered, and nothing of it is recorded yet.
DELIVERY_BETWEEN_SEND_AND_COMMIT = "notifier.delivery.between-send-and-commit"
#: In leveret_runtime.outbox.
OUTBOX_BETWEEN_PUBLISH_AND_SENT = "notifier.outbox.between-publish-and-sent"

FAILPOINTS: tuple[str, ...] = (
    JOB_BEFORE_COMMIT,
    JOB_BEFORE_ACK,
    DELIVERY_BEFORE_SEND,
    DELIVERY_BETWEEN_SEND_AND_COMMIT,
    OUTBOX_BETWEEN_PUBLISH_AND_SENT,
)
