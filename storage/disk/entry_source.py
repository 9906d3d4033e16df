"""Values of journal entries that only the disk holds."""

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import StoreCorrupt
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.disk.disk_trouble import START_ANEW
from ekko.storage.disk.durable import Durable
from ekko.storage.engine.cells import entry_width, journal_prefix
from ekko.storage.engine.journal_directory import JournalDirectory


class EntrySource:
    """Reads of one table's journals, from any thread.

    Attributes:
        number: the table's number on disk, once it has one.
    """

    def __init__(self, table: str, dim: int, durable: Durable, directory: JournalDirectory) -> None:
        self.number = 0
        self._table, self._dim = table, dim
        self._durable, self._directory = durable, directory

    def look(self, label: int, keys: UInt64s) -> tuple[Int32s, npt.NDArray[np.bool_]]:
        """Values int32[N, dim] of the keys' entries under `label`, and which of them there are."""
        values = np.zeros((len(keys), self._dim), dtype=np.int32)
        found = np.zeros(len(keys), dtype=np.bool_)
        for number in self._directory.numbers(label):
            missing = np.flatnonzero(~found)
            if not missing.size:
                break
            prefix = journal_prefix(number, self.number)
            data, present = self._durable.fetch(prefix, keys[missing], entry_width(self._dim))
            values[missing[present]] = np.ascontiguousarray(data[present]).view("<i4")
            found[missing] = present
        return values, found

    def read(self, label: int, keys: UInt64s) -> Int32s:
        """Like `look`, where all must be there.

        Raises:
            StoreCorrupt: some are not.
        """
        values, found = self.look(label, keys)
        if not found.all():
            raise StoreCorrupt(
                f"table {self._table}: {int((~found).sum())} entries of journal {label} are missing on disk",
                hint=START_ANEW,
            )
        return values
