"""Proof that journals on disk are what the last flush left: nothing missing, changed or added."""

from ekko.schemas.errors import StoreCorrupt
from ekko.storage.disk.disk_trouble import START_ANEW
from ekko.storage.disk.manifest import Manifest, TableEntry
from ekko.storage.engine.journal_tallies import Tally


class JournalProof:
    """What a manifest says about its journals; nothing in folders of earlier software, and then all are believed."""

    def __init__(self, manifest: Manifest) -> None:
        self._told = manifest.tallies is not None
        self._left = {(tally.label, tally.table): (tally.entries, tally.checksum) for tally in manifest.tallies or ()}

    def check(self, label: int, table: TableEntry, found: Tally) -> None:
        """Compare what was found of one table's journal.

        Raises:
            StoreCorrupt: it is not what the last flush left.
        """
        left = self._left.get((label, table.number), (0, 0))
        if self._told and found != left:
            raise StoreCorrupt(
                f"table {table.name}: journal {label} has {found[0]} entries with checksum {found[1]:016x} on disk, "
                f"the last flush left {left[0]} with {left[1]:016x}",
                hint=START_ANEW,
            )
