"""The catalogue as everybody reads it: models, tables, regions and writer schemas, now and as of any offset.

A fold over the one-partition topic `ekko.catalogue`, which is never compacted or trimmed, so that every reader comes to
the same answer about the same offset (DESIGN, law 7). Writing to it is the business of `streams.catalogue.declaring`.
"""

import logging
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import CHANGEABLE, ModelDeclaration, RegionDeclaration, SchemaDeclaration
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, FormatError
from ekko.streams.log import Bounds, Cluster, Output, Partition, Reader, Record, read_between, reading

PARTITION = Partition(topics.CATALOGUE, 0)

_log = logging.getLogger("ekko.catalogue")
_Declaration = TypeVar("_Declaration", ModelDeclaration, RegionDeclaration)
_MIRRORED_KEY = re.compile(rb"(.*)@(\d+)")


def model_after(current: ModelDeclaration | None, record: ModelDeclaration, offset: int) -> ModelDeclaration | None:
    """A model after one more record about its name; None: there is no such model any more.

    Whatever writers do, shards and existing tables keep the values they were created with, all but those that may
    change: of two writers that raced, the first one's record counts and the other's adds what is new in it.
    """
    if record.incarnation is None:
        return replace(record, incarnation=offset) if current is None and not record.deleted else current
    if current is None or record.incarnation != current.incarnation:
        return current
    if record.deleted:
        return None
    newest = {table.name: table for table in record.tables}
    kept = tuple(
        replace(table, **{field: getattr(newest.get(table.name, table), field) for field in CHANGEABLE})
        for table in current.tables
    )
    known = {table.name for table in current.tables}
    added = tuple(table for table in record.tables if table.name not in known)
    return replace(current, tables=kept + added, max_rows_a_block=record.max_rows_a_block)


def region_after(current: RegionDeclaration | None, record: RegionDeclaration, offset: int) -> RegionDeclaration | None:
    """A region after one more record about its name; None: there is no such region any more."""
    if record.incarnation is None:
        return replace(record, incarnation=offset) if current is None and not record.deleted else current
    if current is None or record.incarnation != current.incarnation:
        return current
    return None if record.deleted else replace(current, bootstrap=record.bootstrap)


def mirrored(record: Record) -> Output:
    """A catalogue record as it is copied to a region's own cluster: the key tells its central offset, which counts."""
    return Output(PARTITION, record.value, (record.key or b"") + b"@" + str(record.offset).encode())


class _History(Generic[_Declaration]):
    """Every state of every name of one kind, by the catalogue end at which it began."""

    def __init__(
        self, after: Callable[[_Declaration | None, _Declaration, int], _Declaration | None], what: str, remedy: str
    ) -> None:
        self._after: Callable[[_Declaration | None, _Declaration, int], _Declaration | None] = after
        self._what = what
        self._remedy = remedy
        self._ends: dict[str, list[int]] = {}
        self._states: dict[str, list[_Declaration | None]] = {}
        self.live: dict[str, _Declaration] = {}

    def absorb(self, record: _Declaration, offset: int) -> None:
        name, current = record.name, self.live.get(record.name)
        state = self._after(current, record, offset)
        if state == current:
            return
        self._ends.setdefault(name, []).append(offset + 1)
        self._states.setdefault(name, []).append(state)
        # A new dict each time: whoever iterates over the old one is not disturbed.
        others = {other: declaration for other, declaration in self.live.items() if other != name}
        self.live = others if state is None else {**others, name: state}

    def as_of(self, name: str, end: int) -> _Declaration | None:
        index = bisect_right(self._ends.get(name, []), end) - 1
        return self._states[name][index] if index >= 0 else None

    def is_gone(self, name: str) -> bool:
        return name in self._states and name not in self.live

    def get(self, name: str) -> _Declaration:
        found = self.live.get(name)
        if found is None:
            names = ", ".join(sorted(self.live)) or "none"
            gone = "was deleted" if self.is_gone(name) else "is not in the catalogue"
            raise ConfigurationError(f"{self._what} {name!r} {gone}", hint=f"known: {names}; {self._remedy}")
        return found


class Catalogue:
    """What the catalogue says, as of the last record read. Not thread-safe: one reader, one thread.

    Nothing is read before the first call of `refresh`, `reach` or `poll`.

    Args:
        cluster: the central cluster, or a region's own one, to which the fan-out mirrors the catalogue.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._reader: Reader | None = None
        self._start = 0
        self._unread: deque[Record] = deque()
        self._models = _History(model_after, "model", "declare it with `ekko model apply FILE`")
        self._regions = _History(region_after, "region", "declare it with `ekko model apply FILE`")
        self._schemas: set[tuple[int, int]] = set()
        self.codec = Codec()
        self._ends: list[int] = []
        self._written_ms: list[int] = []
        self.end = 0
        """Central offset just after the last record read: what blocks and barriers name."""

    @property
    def models(self) -> dict[str, ModelDeclaration]:
        """Live models by name, incarnation filled in."""
        return self._models.live

    @property
    def regions(self) -> dict[str, RegionDeclaration]:
        """Live regions by name, incarnation filled in."""
        return self._regions.live

    def model(self, name: str) -> ModelDeclaration:
        """The live model `name`; raises ConfigurationError listing those that exist."""
        return self._models.get(name)

    def region(self, name: str) -> RegionDeclaration:
        """The live region `name`; raises ConfigurationError listing those that exist."""
        return self._regions.get(name)

    def model_as_of(self, name: str, offset: int) -> ModelDeclaration | None:
        """The model as the records before catalogue offset `offset` have it; None: not there, or deleted.

        Raises:
            ValueError: the catalogue is not read that far (call `reach` first).
        """
        if offset > self.end:
            raise ValueError(f"catalogue as of {offset} was asked, but it is read up to {self.end}")
        return self._models.as_of(name, offset)

    def existed_at(self, offset: int, timestamp_ms: int) -> bool:
        """Whether the catalogue provably reached `offset` before this moment, by the log's own time stamps.

        False: it did not, or not provably (two stamps in one millisecond, or not read that far).
        """
        index = bisect_left(self._ends, offset)
        return index < len(self._ends) and self._written_ms[index] < timestamp_ms

    def was_deleted(self, *, model: str = "", region: str = "") -> bool:
        """Whether a model (or region) of this name existed and is gone."""
        return self._models.is_gone(model) or self._regions.is_gone(region)

    def has_schema(self, schema: SchemaDeclaration) -> bool:
        """Whether this writer schema stands in the catalogue."""
        return (schema.kind, schema.fingerprint) in self._schemas

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Take what has come since; returns whether there was anything. Cheap: no request to the brokers.

        Raises:
            TopicMissing: there is no catalogue (first call only).
            GapError: somebody trimmed the catalogue.
            FormatTooNew: a record needs newer software; every later call raises again.
        """
        self._unread.extend(self._connected().poll(timeout_s))
        return self._absorb()

    def refresh(self, timeout_s: float = 10.0) -> int:
        """Read on to the end that the catalogue has now; returns `end`.

        Raises:
            ConnectionFailed: not reached within `timeout_s`; else as `poll`.
        """
        self._absorb()
        end = self._cluster.bounds([PARTITION])[PARTITION].end
        if self._start == 0 and self._reader is None:
            # With a reader made for that; the one made for waiting comes once there is something to wait for.
            self._unread.extend(read_between(self._cluster, {PARTITION: Bounds(0, end)}, timeout_s=timeout_s))
            self._start = end
            self._absorb()
        self._read_until(lambda: self._position() >= end, timeout_s, f"catalogue offset {end}")
        return self.end

    def reach(self, offset: int, timeout_s: float = 10.0) -> None:
        """Read on until `end` is at least `offset`, a number that some block or barrier named.

        Raises:
            ConnectionFailed: not reached within `timeout_s`; else as `poll`.
        """
        self._read_until(lambda: self.end >= offset, timeout_s, f"catalogue offset {offset}")

    def close(self) -> None:
        """Release the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _position(self) -> int:
        return self._start if self._reader is None else self._reader.position(PARTITION)

    def _connected(self) -> Reader:
        if self._reader is None:
            self._reader = reading(self._cluster, {PARTITION: self._start})
        return self._reader

    def _read_until(self, reached: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            left_s = deadline - time.monotonic()
            if not self.poll(min(0.01, max(0.0, left_s))) and left_s <= 0:
                raise ConnectionFailed(
                    f"{what} was not reached within {timeout_s} s (read up to {self.end})",
                    hint="check that the broker answers; in a region with its own cluster, that its fan-out runs",
                )

    def _absorb(self) -> bool:
        """Take the records at hand one by one, so that one that raises stays first in line."""
        any_taken = False
        while self._unread:
            self._take(self._unread[0])
            self._unread.popleft()
            any_taken = True
        return any_taken

    def _take(self, record: Record) -> None:
        mirror = _MIRRORED_KEY.fullmatch(record.key or b"")
        offset = int(mirror[2]) if mirror else record.offset
        if offset < self.end:
            return  # a mirror may repeat itself
        try:
            message = self.codec.decode(record.value)
            if isinstance(message, SchemaDeclaration):
                self.codec.learn(message)
                self._schemas.add((message.kind, message.fingerprint))
        except FormatError as error:
            _log.warning("catalogue offset %d is skipped: %s", offset, error)
        else:
            if isinstance(message, ModelDeclaration):
                self._models.absorb(message, offset)
            elif isinstance(message, RegionDeclaration):
                self._regions.absorb(message, offset)
        self.end = offset + 1
        self._ends.append(self.end)
        self._written_ms.append(record.timestamp_ms)
