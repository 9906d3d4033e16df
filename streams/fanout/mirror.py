"""A region with a cluster of its own: catalogue and control records go down to it, its signals come up.

So stores need no connection but to their region's cluster, and one copy crosses the link however many they are.
Nothing exact rests on the mirror: barriers travel in the lanes, a copy may repeat itself, and signals lost while no
fan-out runs are lost measurements.
"""

import logging
from collections.abc import Iterable, Mapping

from ekko.schemas import topics
from ekko.schemas.errors import EkkoError, QueueFull, TopicMissing
from ekko.streams import catalogue
from ekko.streams.log import Cluster, Output, Partition, Reader, Record, Writer

_log = logging.getLogger(__name__)

_CONFIRM_S = 5.0


class RegionMirror:
    """Copies between the central and a region's own cluster; several instances may do so at once.

    Any failure throws the connections away, and the next step begins anew from what the region's cluster holds.
    """

    def __init__(self, central: Cluster, regional: Cluster, *, retry_s: float = 1.0) -> None:
        self._central, self._regional = central, regional
        self._retry_s, self._retry_at_s = retry_s, 0.0
        self._down: _Copier | None = None
        self._up: _Copier | None = None
        self._failure = ""

    def step(self, now_s: float, models: Iterable[str], timeout_s: float = 0.0) -> bool:
        """Copy what has come, waiting for it up to `timeout_s`; returns whether there was anything."""
        if now_s < self._retry_at_s:
            return False
        try:
            if self._down is None or self._up is None:
                self._down, self._up = self._connect()
            self._down.follow({Partition(topics.control(model), 0) for model in models})
            self._up.follow({Partition(topics.signals(model), 0) for model in models})
            copied = self._down.step(timeout_s)
            copied = self._up.step(0.0) or copied
        except EkkoError as error:
            if str(error) != self._failure:
                _log.warning("mirroring fails, trying again: %s (%s)", error, error.hint)
            self._failure, self._retry_at_s = str(error), now_s + self._retry_s
            self.close()
            return False
        self._failure = ""
        return copied

    def close(self) -> None:
        """Release the connections."""
        for copier in (self._down, self._up):
            if copier is not None:
                copier.close()
        self._down = self._up = None

    def _connect(self) -> tuple["_Copier", "_Copier"]:
        copy = catalogue.Catalogue(self._regional)
        try:
            end = copy.refresh()
        finally:
            copy.close()
        # The catalogue in full and in order; of control the few records that compaction left; signals from now on.
        down = _Copier(self._central, self._regional, {catalogue.PARTITION: end}, from_end=False)
        return down, _Copier(self._regional, self._central, {}, from_end=True)


class _Copier:
    """Copies records of partitions from one cluster to the other, in order."""

    def __init__(self, source: Cluster, target: Cluster, fixed: Mapping[Partition, int], *, from_end: bool) -> None:
        self._source, self._from_end = source, from_end
        self._fixed = fixed.keys()
        self._positions: dict[Partition, int] = {}
        self._failures: list[Exception] = []
        self._reader: Reader = source.reader()
        self._writer: Writer = target.writer()
        self._assign({**fixed})

    def follow(self, partitions: set[Partition]) -> None:
        """Copy these partitions, and those of the beginning."""
        wanted = partitions | self._fixed
        if wanted == self._positions.keys():
            return
        kept = {at: position for at, position in self._positions.items() if at in wanted}
        new: dict[Partition, int] = {}
        for partition in wanted - kept.keys():
            try:
                bounds = self._source.bounds([partition])[partition]
            except TopicMissing:  # declared, but its topics are still being made
                continue
            new[partition] = bounds.end if self._from_end else bounds.low
        if new or len(kept) < len(self._positions):
            self._assign(kept | new)

    def step(self, timeout_s: float) -> bool:
        """Copy what is there."""
        records = self._reader.poll(timeout_s) if self._positions else []
        for record in records:
            self._send(record)
            if record.partition == catalogue.PARTITION:
                # One at a time: were one lost and a later one not, the copy would end beyond the gap and never mend it.
                self._confirm(self._writer.flush(_CONFIRM_S))
        self._writer.poll(0.0)
        self._confirm(0)
        return bool(records)

    def _confirm(self, in_flight: int) -> None:
        if self._failures:
            raise EkkoError(f"a copy was not delivered: {self._failures[0]}")
        if in_flight:
            raise EkkoError(f"a copy was not delivered within {_CONFIRM_S} s")

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _assign(self, positions: dict[Partition, int]) -> None:
        self._positions = positions
        self._reader.assign(positions)

    def _send(self, record: Record) -> None:
        copy = Output(record.partition, record.value, record.key)
        if record.partition == catalogue.PARTITION:
            copy = catalogue.mirrored(record)
        while True:
            try:
                self._writer.send(copy, self._delivered)
                break
            except QueueFull:
                self._writer.poll(0.1)
                if self._failures:
                    return
        self._positions[record.partition] = record.offset + 1

    def _delivered(self, offset: int | None, error: Exception | None) -> None:
        del offset
        if error is not None:
            self._failures.append(error)
