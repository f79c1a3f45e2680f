"""The rows that wait, in the order in which they are admitted: users take turns, each user's rows stay in line.

Round robin, which is start-time fair queueing (Goyal et al., 1996) where each row is one unit of service: a user's turn
is one row, whose admission moves the user to the end of the round. So a user who joins waits for at most one row of
each other user, a row that has k of its user before it for at most k + 1 of each other one, and nothing starves. A row
that was admitted before has had its turn, and comes first of all. Rows without a user, the server's own work, are one
user together. Knows nothing of why a row is admitted, or not yet.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

from server.engine.scheduling.row import Row


class FairQueue:
    """Iterates over its rows in order, in O(rows)."""

    def __init__(self) -> None:
        self._preempted: list[Row] = []  # in the order of their turns
        self._lines: OrderedDict[str | None, list[Row]] = OrderedDict()  # by user, whose turn is next first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Row]:
        yield from tuple(self._preempted)
        lines, place = [tuple(line) for line in self._lines.values()], 0
        while lines:
            yield from [line[place] for line in lines]
            place += 1
            lines = [line for line in lines if len(line) > place]

    def add(self, row: Row) -> None:
        """At the end of its user's line; a user who had none waiting comes last in the round."""
        if row.turn:
            insort(self._preempted, row, key=lambda other: other.turn)
        else:
            self._lines.setdefault(row.user, []).append(row)
        self._size += 1

    def take(self, row: Row) -> None:
        """The row is admitted: its user's next one waits for a round."""
        self.remove(row)
        if not row.turn and row.user in self._lines:
            self._lines.move_to_end(row.user)

    def remove(self, row: Row) -> None:
        """The row no longer waits; its user's turn stays where it was."""
        line = self._preempted if row.turn else self._lines[row.user]
        line.remove(row)
        self._size -= 1
        if not line and not row.turn:
            del self._lines[row.user]
