"""Reading a store of this machine through its shared memory: no server, no copy through a socket."""

import os
import platform
import select
import weakref
from pathlib import Path

import numpy as np

from ekko.schemas.declarations import ModelDeclaration, check_incarnation
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, NotOwned, NotReady, StateUnavailable
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.storage.engine.memory import Segment
from ekko.storage.engine.reading import TableReader
from ekko.storage.serving.wire import Reply
from ekko.storage.shared.notice_board import BOARD_COLUMNS, Notice, NoticeBoard
from ekko.storage.shared.reader_handle import ReaderHandle, find_handle, started_at

_ORDERED = ("x86_64", "amd64")
"""Processors on which other processes see writes in the order in which they were made; numpy offers no barrier."""


class LocalStore:
    """One model's rows in the memory of a store process on this machine; may be shared by threads.

    It attaches anew when the store was restarted or has gained a table.

    Args:
        data: the store's --data folder; the store may be started later.
    """

    def __init__(self, data: Path, model: str) -> None:
        self._data, self._name = data, model
        self._attached: _Attached | None = None

    @property
    def model(self) -> ModelDeclaration:
        """The model's declaration as of when the store last gained a table; raises like `lookup`."""
        return self._current().handle.model

    def lookup(self, table: str, keys: UInt64s, as_of: int | None = None, *, incarnation: int | None = None) -> Reply:
        """Rows as stored, found, and the encoded version vector that they contain at least.

        Args:
            incarnation: of the model as it is known to the caller, who must not read another one's rows; None for any.

        Raises:
            ConfigurationError: no such table or incarnation, or no store of the model has left a handle in the folder.
            NotReady, NotOwned, StateUnavailable: as a store answers over HTTP.
            ConnectionFailed: the store has ended.
        """
        attached = self._current()
        if table not in attached.readers:
            attached = self._attach()
        check_incarnation(attached.handle.model, incarnation)
        reader = attached.readers.get(table)
        if reader is None:
            raise ConfigurationError(
                f"model {self._name} has no table {table!r}",
                hint=f"its tables: {', '.join(attached.readers) or 'none'}",
            )
        attached.check_owned(keys)
        notice = attached.notice()
        _check_state(notice, as_of)
        rows, found = reader.lookup(keys, as_of)
        if as_of is not None:
            _check_state(attached.notice(), as_of)  # its journals may have gone while they were read
        return Reply(rows, found, (notice.vector,))

    def close(self) -> None:
        """Let go of the store's memory."""
        if self._attached is not None:
            self._attached.close()

    def _current(self) -> "_Attached":
        return self._attached if self._attached is not None and self._attached.alive else self._attach()

    def _attach(self) -> "_Attached":
        before, self._attached = self._attached, None
        if before is not None:
            before.close()
        attached = _Attached(find_handle(self._data, self._name))
        if not attached.alive:
            attached.close()
            raise _ended(attached.handle)
        self._attached = attached
        return attached


class _Attached:
    """The mapped memory of one store process."""

    def __init__(self, handle: ReaderHandle) -> None:
        if platform.machine().lower() not in _ORDERED:
            raise ConfigurationError(
                f"shared memory is not read on {platform.machine()}: it may show a store's writes in another order",
                hint="give the host:port of the store",
            )
        self.handle = handle
        try:
            process = os.pidfd_open(handle.process)
        except (AttributeError, OSError) as error:
            raise _ended(handle) from error
        self._open = weakref.finalize(self, os.close, process)
        if started_at(handle.process) != handle.started:  # a container's processes get the same ids at every start
            raise _ended(handle)
        self._poll = select.poll()
        self._poll.register(process, select.POLLIN)
        self._board = NoticeBoard(Segment.attach(handle.process, handle.board, BOARD_COLUMNS).arrays)
        self._notice: Notice | None = None
        self.readers = {
            table.name: TableReader(Segment.attach(handle.process, table.descriptor, table.columns).arrays, None)
            for table in handle.tables
        }

    @property
    def alive(self) -> bool:
        """Whether the process lives and the store in it is open."""
        return self._open.alive and not self._poll.poll(0) and not self.notice_or_older().closed

    def notice(self) -> Notice:
        """What the store tells now; raises NotReady while it serves nothing."""
        notice = self.notice_or_older()
        if not notice.serving:
            raise NotReady(
                f"model {self.handle.model.name}: the store has not caught up", hint="ask another one or wait"
            )
        return notice

    def notice_or_older(self) -> Notice:
        """The board, read anew only if it has changed."""
        if self._notice is None or self._board.version != self._notice.version or self._board.closed:
            self._notice = self._board.read()
        return self._notice

    def check_owned(self, keys: UInt64s) -> None:
        """Refuse keys of shards that the store does not own."""
        handle = self.handle
        if len(handle.shards) == handle.model.shards:
            return
        foreign = ~np.isin(shard_of(keys, handle.model.shards), handle.shards)
        if foreign.any():
            raise NotOwned(f"{int(foreign.sum())} keys belong to shards that the local store does not own")

    def close(self) -> None:
        """Release the process handle; the memory goes with the last array."""
        self._open()


def _ended(handle: ReaderHandle) -> ConnectionFailed:
    return ConnectionFailed(
        f"the store of model {handle.model.name}, process {handle.process}, has ended",
        hint="start `ekko store` again, or read over HTTP",
    )


def _check_state(notice: Notice, as_of: int | None) -> None:
    if as_of is None:
        return
    if as_of > notice.complete:
        raise StateUnavailable(f"model state {as_of} is not complete here yet", hint="ask another store or wait")
    if as_of < notice.bound or any(as_of in states for states in notice.withdrawn):
        raise StateUnavailable(
            f"model state {as_of} is withdrawn or below the bound {notice.bound}",
            hint="choose a state that `ekko states` lists",
        )
