"""Groups that grow by joining pairs (a disjoint-set forest with path halving; Tarjan and van
Leeuwen, 1984). The smallest member names its group.
"""

from __future__ import annotations


class Groups:
    """Members 0 … `count` - 1, each at first a group of its own."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def first(self, member: int) -> int:
        """The smallest member of a member's group."""
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        """Make one group of the two members' groups."""
        first, second = sorted((self.first(one), self.first(other)))
        self._parent[second] = first

    def firsts(self) -> list[int]:
        """For every member the smallest member of its group."""
        return [self.first(member) for member in range(len(self._parent))]
