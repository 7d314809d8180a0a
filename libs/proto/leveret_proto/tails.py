"""The last bytes of a log, from the start of a line on: how `?last=` and `--last` cut. Pure."""


def skipped(block: bytes, *, ends: bool) -> int:
    """Give how many bytes of `block` to leave out so that a tail begins with a line.

    Args:
        block: a log's bytes from the one before the tail on; not empty.
        ends: the log ends with it.

    Returns:
        At least 1. Where no line begins in `block`, the tail is cut as it was asked for.
    """
    found = block.find(b"\n") + 1
    return 1 if found == 0 or (ends and found == len(block)) else found
