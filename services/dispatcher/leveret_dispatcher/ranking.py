"""Things in the order of ranks that change, the least first. Pure.

A heap whose entries are never searched for: what was ranked anew or taken out leaves a void entry behind, which is
dropped when it comes up, or when void ones are the most. So every step costs the logarithm of the number of things.
"""

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

#: Void entries that are never worth clearing away.
SLACK = 16


class Ranking(Generic[Item]):
    """Items, each with a rank of integers. Of equal ranks the lesser item comes first."""

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        #: An entry is the rank and, as its last element, the item.
        self._heap: list[tuple[Any, ...]] = []
        self._entries: dict[Item, tuple[Any, ...]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Item]:
        """Give the items, in no order."""
        return iter(self._entries)

    def put(self, item: Item, *rank: int) -> None:
        """Rank an item, new or not."""
        entry = (*rank, item)
        if self._entries.get(item) == entry:
            return
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)
        self._clear_away()

    def drop(self, item: Item) -> None:
        """Take an item out; one that is not there is no fault."""
        if self._entries.pop(item, None) is not None:
            self._clear_away()

    def clear(self) -> None:
        self._heap.clear()
        self._entries.clear()

    def rank(self, item: Item) -> tuple[int, ...]:
        """Give an item's rank. Raises KeyError where it has none."""
        return self._entries[item][:-1]

    def first(self) -> Item | None:
        """Give the item with the least rank."""
        while self._heap:
            entry = self._heap[0]
            item: Item = entry[-1]
            if self._entries.get(item) is entry:
                return item
            heapq.heappop(self._heap)
        return None

    def _clear_away(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
