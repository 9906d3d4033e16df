"""The store's side of readers in other processes: its notice board and its handle."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.replicas import ReplicaState
from ekko.storage.engine.journal_directory import JournalDirectory
from ekko.storage.engine.memory import Segment
from ekko.storage.engine.table import Table
from ekko.storage.shared.notice_board import BOARD_COLUMNS, NoticeBoard
from ekko.storage.shared.reader_handle import ReaderHandle, SharedTable, started_at, write_handle

_log = logging.getLogger("ekko.store")


class Sharing:
    """What readers in other processes need of one store.

    Args:
        folder: where the handle is left; nowhere if it does not exist (a store that is kept elsewhere).
        shards: those that the store owns.
    """

    def __init__(self, folder: Path, model: ModelDeclaration, shards: tuple[int, ...]) -> None:
        self._folder = folder if folder.is_dir() else None
        self._model, self._shards = model, shards
        self._segment = Segment.create(BOARD_COLUMNS)
        self._board = NoticeBoard(self._segment.arrays)
        self._told: tuple[ReplicaState, bool] | None = None

    def handle(self, tables: Mapping[str, Table]) -> ReaderHandle:
        """How to attach to the tables as they are now."""
        shared = [SharedTable(name, table.segment.descriptor, table.segment.columns) for name, table in tables.items()]
        model = replace(self._model, tables=tuple(table.declaration for table in tables.values()))
        process = os.getpid()
        board = self._segment.descriptor
        return ReaderHandle(process, started_at(process), board, model, self._shards, tuple(shared))

    def announce(self, tables: Mapping[str, Table]) -> None:
        """Leave the handle where readers look; where that fails they read over HTTP, and the store goes on."""
        if self._folder is not None:
            try:
                write_handle(self._folder, self.handle(tables))
            except OSError as error:
                _log.error(
                    "model %s: readers on this machine cannot be told of its memory: %s", self._model.name, error
                )

    def publish(self, state: ReplicaState, *, serving: bool) -> None:
        """Tell the version vector that the rows contain, and whether they may be read."""
        told = self._told
        if told is None or told[0] != state or told[1] != serving:
            self._told = state, serving
            self._board.write(encode(state), serving=serving, complete=state.complete)

    def limit(self, directory: JournalDirectory) -> None:
        """Tell which states can be read no more."""
        self._board.limit(directory.bound, directory.withdrawn)

    def close(self) -> None:
        """Tell that the store has ended."""
        self._board.close()
