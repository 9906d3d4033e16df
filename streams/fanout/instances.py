"""Which instances of a region's fan-out live, and which of them works on what.

Every instance announces itself in `ekko.<region>.fanouts`. Who lives is read from that log by its broker's time
stamps, so no two clocks are compared, and who owns a shard group follows from who lives (rendezvous hashing: Thaler,
Ravishankar, 1998). Views may differ for a moment; then one fences the other, and exactness never rests on agreement.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.errors import EkkoError, Fenced, FormatError, QueueFull
from ekko.schemas.replicas import Member
from ekko.streams.log import Cluster, Output, Partition, Reader, Record, Writer, reading

_log = logging.getLogger(__name__)


NOTHING: Mapping[str, str] = {}


def owner(instances: Iterable[str], what: str) -> str:
    """The instance that works on `what`: when one comes or goes, only what it owns changes hands."""
    return max(instances, key=lambda name: hashlib.blake2b(f"{name}/{what}".encode()).digest())


class Instances:
    """Announces this instance and follows the others.

    Args:
        name: the same after a restart, so that an instance that was killed goes on at once with what it had.
        interval_s: between two announcements.
        lifetime_s: silence after which an instance counts as dead.
    """

    def __init__(
        self, cluster: Cluster, region: str, name: str, started_s: float, *, interval_s: float, lifetime_s: float
    ) -> None:
        self._cluster, self._region, self.name = cluster, region, name
        self._started_us = int(started_s * 1e6)
        self._interval_s, self._lifetime_ms = interval_s, lifetime_s * 1000
        self._partition = Partition(topics.fanouts(region), 0)
        self._codec = Codec()
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._due_s = 0.0
        self._halted: dict[str, str] = {}
        self._failure = ""
        self._seen_ms: dict[str, int] = {}
        self._former_lives: set[int] = set()
        self.living: frozenset[str] = frozenset()
        """This instance among them; empty as long as its own first announcement was not read back."""

    def step(self, now_s: float, halted: Mapping[str, str] = NOTHING) -> None:
        """Announce this instance if it is time, and take in what others announced; never waits.

        `halted` ("model/shard" -> why it stands still here) is told at once when it changes.

        Raises:
            Fenced: another process of this name has started.
        """
        try:
            if self._reader is None:
                self._reader = self._connect()
            if now_s >= self._due_s or halted != self._halted:
                self._halted = dict(halted)
                self._due_s = now_s + self._interval_s
                self._announce(now_s, ready=True)
            for record in self._reader.poll(0.0):
                self._take(record)
            self._failure = ""
        except Fenced:
            raise
        except EkkoError as error:
            if str(error) != self._failure:
                _log.warning("instances of region %s cannot be followed: %s (%s)", self._region, error, error.hint)
            self._failure = str(error)
            self._disconnect()
        own_ms = self._seen_ms.get(self.name)
        if own_ms is not None:
            self.living = frozenset(name for name, ms in self._seen_ms.items() if ms >= own_ms - self._lifetime_ms)

    def leave(self, now_s: float) -> None:
        """Say good-bye, so that others take over at once."""
        if self._writer is not None and self.name in self._seen_ms:
            self._announce(now_s, ready=False)
        self._disconnect()

    def _connect(self) -> Reader:
        bounds = self._cluster.bounds([self._partition])[self._partition]
        reader = reading(self._cluster, {self._partition: bounds.low})
        self._writer = self._cluster.writer()
        return reader

    def _disconnect(self) -> None:
        for client in (self._reader, self._writer):
            if client is not None:
                client.close()
        self._reader = self._writer = None

    def _announce(self, now_s: float, *, ready: bool) -> None:
        assert self._writer is not None
        written_us = int(now_s * 1e6)
        member = Member(self._region, self.name, "", ready, self._started_us, written_us, halted=self._halted)
        try:
            self._writer.send(Output(self._partition, encode(member), self.name.encode()))
        except QueueFull:
            return  # the cluster is away: there is nothing to announce to
        self._writer.poll(0.0)

    def _take(self, record: Record) -> None:
        try:
            member = self._codec.decode(record.value)
        except FormatError as error:
            _log.warning("%s offset %d is skipped: %s", self._partition.topic, record.offset, error)
            return
        if not isinstance(member, Member):
            return
        if member.replica == self.name and member.started_us != self._started_us:
            self._meet_namesake(member.started_us)
            return
        if member.ready:
            self._seen_ms[member.replica] = record.timestamp_ms
        else:
            self._seen_ms.pop(member.replica, None)

    def _meet_namesake(self, started_us: int) -> None:
        """Another process of the same name: an earlier one if it announced itself before this one did."""
        if self.name not in self._seen_ms:
            self._former_lives.add(started_us)
        elif started_us not in self._former_lives:
            raise Fenced(
                f"another fan-out process called {self.name!r} has started for region {self._region}",
                hint="this one stops; to let both share the work, give each its own --instance NAME",
            )
