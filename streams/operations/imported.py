"""Importing rows into a table; an attempt goes on after the last one.

The blocks name their import and chunk, so the log tells what earlier attempts have brought in.
"""

from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import is_void
from ekko.schemas.errors import ConfigurationError
from ekko.streams.operations.accepted import Accepted, read_accepted
from ekko.streams.operations.marks import mark_ends
from ekko.streams.operations.parts import Provenance
from ekko.streams.operations.rows_writer import RowsWriter, Target


class RowsImport(RowsWriter):
    """One attempt at an import.

    Args:
        identity: the same for every attempt, another one for other contents.
        at_us: when, microseconds since 1970.
    """

    def __init__(self, target: Target, table: TableDeclaration, identity: str, at_us: int) -> None:
        super().__init__(target, table, Purpose.IMPORT, at_us)
        self.identity = identity

    def chunks_in_log(self) -> frozenset[int]:
        """Chunks of this import that count already, when nobody else has put anything into the table.

        Raises:
            ConfigurationError: somebody has.
            GapError: retention has passed the beginning of the log, so nobody can tell.
            NotReady: blocks at the end of the log wait for a barrier to be decided about.
        """
        found: set[int] = set()
        others: set[str] = set()

        def take(accepted: Accepted) -> None:
            block = accepted.block
            if block.table != self._table.name or is_void(accepted.effective, self.barrier.voids):
                return
            if block.purpose is Purpose.IMPORT and block.trainer == self.identity:
                found.add(int((block.operation or "").rpartition("/")[2]))
            else:
                others.add(block.trainer)

        identity, generation = self.identity, self.barrier.generation
        provenance = Provenance(Purpose.IMPORT, identity, generation, self._catalogue.end, self._at_us)
        ends = mark_ends(self._writer, self._model, provenance)
        read_accepted(self._cluster, self._catalogue, self._model, None, take, ends=ends)
        if others:
            raise ConfigurationError(
                f"table {self._table.name} of model {self._model.name} is not empty: {len(others)} trainer(s) or "
                f"imports have published into it, {min(others)!r} among them",
                hint="--replace --region R --store HOST:PORT sets the rows of the file, whatever they are now",
            )
        return frozenset(found)
