"""Replicas of a region as they announce themselves, and for how long its cluster keeps their lanes."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import EkkoError, FormatError, FormatTooNew
from ekko.schemas.replicas import Member
from ekko.streams.log import Cluster, Partition, Reader
from ekko.streams.manager.silence import shortest_retention_s

Connect = Callable[[RegionDeclaration], Cluster]
"""Makes a connection to a region's cluster."""

_log = logging.getLogger(__name__)

_RETENTION_EVERY_S = 60.0


class MembersView:
    """Follows one region's members topic; a region that cannot be reached only means older announcements.

    Args:
        connect: makes the connection to the region's cluster, once; whoever gives it closes it.
        region: whose members.
        codec: knows the catalogue's writer schemas.

    Attributes:
        caught_up: set once the topic was read to the end that it had when it was opened.
        stopped: set by whoever no longer wants it followed.
        failure: why the region cannot be read at the moment.
        models: those whose lanes are looked at, once a minute.
        kept_s: by model, how long its lanes keep records here, the shorter one, seconds; replaced, not changed.
    """

    def __init__(self, connect: Connect, region: RegionDeclaration, codec: Codec) -> None:
        self.region = region
        self.failure: Exception | None = None
        self.caught_up = threading.Event()
        self.stopped = threading.Event()
        self.models: frozenset[str] = frozenset()
        self.kept_s: Mapping[str, float] = {}
        self._kept_as_of_s, self._kept_of = -_RETENTION_EVERY_S, self.models
        self._connect, self._codec = connect, codec
        self._cluster: Cluster | None = None
        self._reader: Reader | None = None
        self._members: dict[str, Member] = {}
        self._ends: dict[Partition, int] = {}

    @property
    def members(self) -> list[Member]:
        """The last announcement of every replica."""
        return list(self._members.copy().values())

    def step(self, timeout_s: float = 0.0) -> bool:
        """Take in what is new; returns whether anything was. Trouble is kept in `failure` and leads to a new try."""
        try:
            if self._reader is None:
                self._reader = self._open()
            self._look_at_lanes()
            records = self._reader.poll(timeout_s)
        except EkkoError as error:
            if self.failure is None:
                _log.warning("region %s: members cannot be read: %s", self.region.name, error)
            self.failure = error
            self.close()
            return False
        self.failure = None
        taken: set[bytes | None] = set()
        for record in reversed(records):  # a replica's last announcement counts, and reading one takes 0.1 ms
            if record.key not in taken and self._take(record.key, record.value):
                taken.add(record.key)
        if all(self._reader.position(partition) >= end for partition, end in self._ends.items()):
            self.caught_up.set()
        return bool(records)

    def close(self) -> None:
        """Release the reader; what was announced stays known."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> Reader:
        if self._cluster is None:
            self._cluster = self._connect(self.region)
        topic = topics.members(self.region.name)
        partitions = [Partition(topic, number) for number in range(self._cluster.topics().get(topic, 1))]
        bounds = self._cluster.bounds(partitions)
        self._ends = {partition: bound.end for partition, bound in bounds.items()}
        reader = self._cluster.reader()
        reader.assign({partition: bound.low for partition, bound in bounds.items()})
        return reader

    def _look_at_lanes(self) -> None:
        now_s = time.monotonic()
        known = now_s < self._kept_as_of_s + _RETENTION_EVERY_S and self.models == self._kept_of
        if self._cluster is None or known:
            return
        self._kept_as_of_s, self._kept_of = now_s, self.models
        lanes = {model: [topics.lane(model, self.region.name, lane) for lane in Lane] for model in self.models}
        try:
            self.kept_s = {model: shortest_retention_s(self._cluster, names) for model, names in lanes.items()}
        except EkkoError as error:  # without the right to see settings all else works
            _log.warning("region %s: how long lanes are kept is not known: %s", self.region.name, error)

    def _take(self, key: bytes | None, value: bytes | None) -> bool:
        """Whether it could be read."""
        if value is None:
            self._members.pop((key or b"").decode(errors="replace"), None)
            return True
        try:
            message = self._codec.decode(value)
        except (FormatError, FormatTooNew) as error:
            _log.warning("region %s: an announcement cannot be read: %s", self.region.name, error)
            return False
        if isinstance(message, Member):
            self._members[message.replica] = message
        return isinstance(message, Member)
