"""Consumer groups of ours: they tell Kafka's own tools where a process stands, and nothing rests on them.

A process is a member of its group only to be seen there (so Kafka's tools refuse to reset the offsets of a group that
works), and commits where it stands every few seconds. The truth stays with the store or the fan-out state. A commit of
ours carries its own offset as metadata: what lacks it, or has another, was written by somebody else, by Kafka's tools
for instance, whose resets write none.
"""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from ekko.streams.log import Cluster, Partition

COMMIT_EVERY_S = 5.0
"""How often a process commits where it stands."""


class GroupPlace(NamedTuple):
    """A committed offset of a group, the next one to be read, and the metadata that was committed with it."""

    offset: int
    metadata: str


class Group(Protocol):
    """One consumer group, seen from one process."""

    def committed(self, partitions: Iterable[Partition], timeout_s: float = 10.0) -> dict[Partition, GroupPlace]:
        """What is committed for these partitions; those for which nothing is are left out.

        Raises:
            ConnectionFailed: no coordinator answers within `timeout_s`, or we have no right to ask.
        """

    def join(self, topics: Iterable[str]) -> None:
        """Become a member that is seen with these topics and reads none of them; never waits."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tell where we stand, with our metadata; never waits, and what fails is told again with the next call."""

    def write(self, positions: Mapping[Partition, int], timeout_s: float = 10.0) -> None:
        """Commit with our metadata while the group has no members, and read back.

        Raises:
            ConfigurationError: it has members. ConnectionFailed: no answer, or not all of it was taken.
        """

    def close(self) -> None:
        """Leave."""


def metadata_of(offset: int) -> str:
    """What a commit of ours carries."""
    return f"ekko@{offset}"


def reset_by_others(places: Mapping[Partition, GroupPlace]) -> dict[Partition, int]:
    """Committed offsets that are not ours."""
    return {at: place.offset for at, place in places.items() if place.metadata != metadata_of(place.offset)}


class GroupCommits:
    """A process's memberships: commits to each group where it stands, every few seconds, and never waits for it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._groups: dict[str, Group] = {}
        self._due_s = 0.0

    def due(self) -> bool:
        """Whether it is time for `step`."""
        return time.monotonic() >= self._due_s

    def step(self, places: Mapping[str, Mapping[Partition, int]]) -> None:
        """Commit these places, by group; groups that are not named any more are left."""
        self._due_s = time.monotonic() + COMMIT_EVERY_S
        for name in self._groups.keys() - places.keys():
            self._groups.pop(name).close()
        for name, positions in places.items():
            if name not in self._groups:
                self._groups[name] = self._cluster.group(name)
                self._groups[name].join({topic for topic, _ in positions})
            self._groups[name].commit(positions)

    def close(self) -> None:
        """Leave all groups."""
        for group in self._groups.values():
            group.close()
        self._groups = {}
