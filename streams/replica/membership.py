"""Replicas of a region tell each other, and those who roll back, where they stand: `ekko.<region>.members`."""

import logging
import time
from dataclasses import replace

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.errors import FormatError, FormatTooNew
from ekko.schemas.replicas import Member, Undone
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.replica.outlet import Outlet

_log = logging.getLogger("ekko.store")

STALE_US = 10_000_000
"""A member not heard for ten announcements is not shown any more: it may be gone, and is certainly not fresh."""

_LEAVE_TIMEOUT_S = 2.0

_MOST_UNDONE = 64
"""Voids of all models that one announcement tells of."""


class Membership:
    """This replica's announcements, and what it hears of the others.

    Args:
        myself: region, replica, address and start; the rest is filled in by each announcement.
        alone: neither tell others nor hear them: who reads here is to read nowhere else.

    Raises:
        TopicMissing: the region was never declared on this cluster.
    """

    def __init__(self, cluster: Cluster, myself: Member, *, alone: bool = False) -> None:
        self._alone = alone
        self._partition = Partition(topics.members(myself.region), 0)
        self._myself = myself
        self._codec = Codec()
        self._heard: dict[str, Member] = {}
        self._outlet = Outlet(cluster, "announcements")
        self._reader = cluster.reader()
        self._reader.assign({self._partition: cluster.bounds([self._partition])[self._partition].low})
        self._former: tuple[Undone, ...] = ()
        self.rival: str | None = None
        """Address of another process that announces itself under this replica's name."""

    def announce(self, member: Member) -> None:
        """Tell where this replica stands now, and what it undid in an earlier life: no manager may have heard of it."""
        if self._former:
            known = {undone[:3] for undone in self._former}
            new = tuple(undone for undone in member.undone if undone[:3] not in known)
            member = replace(member, undone=(*self._former, *new)[-_MOST_UNDONE:])
        self._heard = {**self._heard, member.replica: member}
        if self._alone:
            return
        self._outlet.send(Output(self._partition, encode(member), member.replica.encode()))
        self._outlet.poll()

    @property
    def trouble(self) -> str:
        """See `Outlet.trouble`."""
        return self._outlet.trouble

    def listen(self) -> None:
        """Take what others have told since."""
        for record in () if self._alone else self._reader.poll(0.0):
            name = (record.key or b"").decode("utf-8", "replace")
            if record.value is None:
                self._heard = {other: member for other, member in self._heard.items() if other != name}
                continue
            try:
                member = self._codec.decode(record.value)
            except (FormatError, FormatTooNew) as error:
                _log.warning("member %s cannot be read: %s", name, error)
                continue
            if isinstance(member, Member):
                self._hear(member)

    def _hear(self, member: Member) -> None:
        if member.replica == self._myself.replica and member.started_us != self._myself.started_us:
            if member.written_us > self._myself.started_us:
                self.rival = member.address
            self._former = member.undone
            return
        self._heard = {**self._heard, member.replica: member}

    def members(self) -> list[Member]:
        """Replicas heard lately, by name."""
        oldest = time.time_ns() // 1_000 - STALE_US
        return [member for _, member in sorted(self._heard.items()) if member.written_us >= oldest]

    def leave(self) -> None:
        """Tell that this replica goes, and release the connections."""
        if not self._alone:
            self._outlet.send(Output(self._partition, None, self._myself.replica.encode()))
        self._outlet.close(_LEAVE_TIMEOUT_S)
        self._reader.close()


def unready(region: str, replica: str, address: str, started_us: int) -> Member:
    """A member that has nothing to show yet."""
    return Member(region, replica, address, ready=False, started_us=started_us, written_us=started_us)


def standing(myself: Member, **now: object) -> Member:
    """`myself` with what is true now."""
    return replace(myself, **now, written_us=time.time_ns() // 1_000)  # type: ignore[arg-type]
