"""The twin of `streams.kafka.group`: what is committed outlives its processes, membership does not."""

from collections.abc import Iterable, Mapping

from ekko.schemas.errors import ConfigurationError
from ekko.streams.groups import GroupPlace, metadata_of
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults


class MemoryGroup:
    """Implements `groups.Group`."""

    def __init__(self, broker: MemoryBroker, faults: Faults, name: str) -> None:
        self._faults, self._name = faults, name
        self._committed = broker.committed.setdefault(name, {})
        self._members = broker.members.setdefault(name, set())

    def committed(self, partitions: Iterable[Partition], timeout_s: float = 10.0) -> dict[Partition, GroupPlace]:
        """See `Group.committed`."""
        del timeout_s
        self._faults.require_broker()
        return {at: GroupPlace(*self._committed[at]) for at in partitions if at in self._committed}

    def join(self, topics: Iterable[str]) -> None:
        """See `Group.join`."""
        del topics
        self._members.add(id(self))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """See `Group.commit`."""
        if self._faults.reachable() and self._members <= {id(self)}:
            self._committed.update({at: (offset, metadata_of(offset)) for at, offset in positions.items()})

    def write(self, positions: Mapping[Partition, int], timeout_s: float = 10.0) -> None:
        """See `Group.write`."""
        del timeout_s
        self._faults.require_broker()
        if self._members:
            raise ConfigurationError(f"group {self._name} has members; nothing was changed", hint="stop its process")
        self.commit(positions)

    def close(self) -> None:
        """See `Group.close`."""
        self._members.discard(id(self))
