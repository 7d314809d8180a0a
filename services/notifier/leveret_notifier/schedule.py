"""When a delivery is tried again. Pure: the chance is an argument."""

from dataclasses import dataclass

#: Each delay is this many times the one before.
FACTOR = 4.0
#: A delay is spread over this part of itself to both sides, so that deliveries that failed together part.
SPREAD = 0.2
#: Seconds: the most that another end's `Retry-After` can ask for.
LONGEST_WISH = 3600.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Growing delays.

    Attributes:
        first: seconds after the first try.
        longest: seconds that no delay exceeds, its spread aside.
        tries: how often a delivery is tried before it is given up.
    """

    first: float
    longest: float
    tries: int

    def delay(self, tries: int, chance: float, wished: float = 0.0) -> float | None:
        """Give the seconds to wait after the `tries`-th try failed (1 is the first); None where it was the last.

        Args:
            tries: how many were made.
            chance: 0.0 to 1.0.
            wished: seconds the other end asked for; up to `LONGEST_WISH` are granted.
        """
        if tries >= self.tries:
            return None
        # past this power every delay is the longest one, and the power itself could overflow
        steps = min(tries - 1, 32)
        planned = min(self.first * FACTOR**steps, self.longest) * (1 + SPREAD * (2 * chance - 1))
        return max(planned, min(wished, LONGEST_WISH))
