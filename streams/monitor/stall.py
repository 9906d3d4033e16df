"""When a monitor counts as stalled: signals wait, and its group's places do not move (pure, no Faust, no Kafka)."""

from collections.abc import Mapping

from ekko.streams.log import Bounds, Partition


class StallWatch:
    """Counts looks in a row at which signals waited and no place had moved.

    Looks and not seconds are counted, so that a process that was paused is not taken for a stalled one.

    Args:
        patience: so many looks in a row make a stall.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._looks = self._idle = 0
        self._places: Mapping[Partition, int] = {}
        self._starts: dict[Partition, int] = {}

    def look(self, bounds: Mapping[Partition, Bounds], places: Mapping[Partition, int]) -> dict[Partition, int]:
        """How many signals wait in each partition if the monitor is stalled, else nothing.

        Args:
            bounds: what the signals' partitions hold now.
            places: the next offset that the group has committed, where it has committed one.
        """
        self._looks += 1
        for partition, bound in bounds.items():
            # A group without a place begins at the end as of its joining, which is some time within the first looks.
            if self._looks <= self._patience or partition not in self._starts:
                self._starts[partition] = bound.end
        waiting = {
            partition: bound.end - place
            for partition, bound in bounds.items()
            # What retention has deleted waits for nobody.
            if (place := max(places.get(partition, self._starts[partition]), bound.low)) < bound.end
        }
        moved = places != self._places
        self._places = dict(places)
        self._idle = 0 if moved or not waiting else self._idle + 1
        return waiting if self._idle >= self._patience else {}
