"""A measured figure, and whether it keeps its promise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

MB = 1_000_000


@dataclass(frozen=True)
class Result:
    """One figure.

    Attributes:
        value: None where it could not be measured here; `compared_with` then says why.
        limit: what is promised; None: nothing, the figure is for information.
        better: which side of the limit is the promised one.
        compared_with: what the figure is a share of, or how it was taken.
    """

    name: str
    value: float | None
    unit: str
    limit: float | None = None
    better: Literal["lower", "higher"] = "lower"
    compared_with: str | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; None where there is none, or no figure."""
        if self.value is None or self.limit is None:
            return None
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    def document(self) -> dict[str, Any]:
        """Give the entry of results.json."""
        value = None if self.value is None else float(f"{self.value:.4g}")
        return {
            "name": self.name, "value": value, "unit": self.unit, "limit": self.limit, "holds": self.holds,
            "compared_with": self.compared_with,
        }  # fmt: skip

    def line(self) -> str:
        """Give a line for people."""
        value = "—" if self.value is None else f"{self.value:,.3g}" if self.value < 1000 else f"{self.value:,.0f}"
        sign = "≤" if self.better == "lower" else "≥"
        promise = "" if self.limit is None else f"{sign} {self.limit:g}"
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "skipped" if self.value is None else ""}[self.holds]
        return f"{self.name:<44} {value:>9} {self.unit:<12} {promise:<8} {verdict:<14} {self.compared_with or ''}"


def skipped(name: str, unit: str, reason: str) -> Result:
    """Give the result of a measure that can't be taken on this machine."""
    return Result(name, None, unit, compared_with=f"skipped: {reason}")


def median(values: Sequence[float]) -> float:
    """Give the middle one of `values` (the lower of two)."""
    return percentile(values, 0.5)


def percentile(values: Sequence[float], share: float) -> float:
    """Give the smallest of `values` that at least `share` (0 to 1) of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
