"""Exit statuses of the `leveret` command, for scripts. This is the one list."""

from leveret_proto.messages import JobStatus

#: Done; a followed build succeeded; a manifest is good.
OK = 0
#: A followed build failed; a manifest has faults or was rejected.
FAILED = 1
#: Wrong arguments, or something that must be installed or configured first is missing.
USAGE = 2
#: The broker can't be reached, or nobody answered in time.
NOT_REACHED = 3
#: No such job or log, or it is not yours to see.
NOT_FOUND = 4
#: A followed build ran into its time limit.
TIMEOUT = 5
#: A followed build was cancelled.
CANCELLED = 6
#: Ctrl-C, as shells have it.
INTERRUPTED = 130

HELP = """\b
Exit status:
  0    done; a followed build succeeded
  1    a followed build failed; a manifest has faults
  2    wrong arguments, or something is missing on this machine
  3    the broker can't be reached, or nobody answered
  4    no such job or log
  5    a followed build ran into its time limit
  6    a followed build was cancelled
  130  interrupted"""

_OF_STATUS = {
    JobStatus.SUCCESS: OK,
    JobStatus.FAILED: FAILED,
    JobStatus.TIMEOUT: TIMEOUT,
    JobStatus.CANCELLED: CANCELLED,
}


def of_build(status: JobStatus) -> int:
    """Give the exit status for a build that ended with `status`."""
    return _OF_STATUS[status]
