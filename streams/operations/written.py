"""What an attempt at an operation has written, and whether it counts.

Blocks behind a rollback's barrier that carry the generation before it are rejected. Barriers say so, and only those in
front of the blocks: the control topic may tell of a rollback later, when its own end can be read.
"""

from collections.abc import Sequence

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import NotReady, RolledBack
from ekko.streams.log import Cluster, Output, Partition, TransactionalWriter
from ekko.streams.manager.history import Decoder, newest_generation, read_control, source_partitions


class Written:
    """Writes blocks of a model into its source log, and knows where the last one of each shard stands."""

    def __init__(self, writer: TransactionalWriter, model: ModelDeclaration) -> None:
        self._writer, self._model = writer, model
        self._source = frozenset(source_partitions(model))
        self._last: dict[Partition, int] = {}

    def transact(self, outputs: Sequence[Output]) -> None:
        """See `TransactionalWriter.transact`."""
        for output, offset in zip(outputs, self._writer.transact(outputs), strict=True):
            if output.partition in self._source:
                self._last[output.partition] = offset

    def check(self, cluster: Cluster, codec: Decoder, generation: int, who: str) -> None:
        """Return if everything was written in this generation, and the model was not rolled back since either.

        Args:
            who: the operation, for the message.

        Raises:
            RolledBack: it was.
            NotReady: somebody's open transaction keeps that from being known.
        """
        control = read_control(cluster, codec, self._model)
        found = control.generation if control is not None else 0
        if self._last:
            try:
                found = max(found, newest_generation(cluster, codec, self._model, self._last))
            except TimeoutError as error:
                raise NotReady(
                    f"everything of {who} is written, but whether model {self._model.name} was rolled back meanwhile "
                    f"cannot be told: {error}",
                    hint="run it again: it goes on where it was",
                ) from error
        if found != generation:
            raise RolledBack(
                f"model {self._model.name} was rolled back while {who} ran",
                hint="look at `ekko states`, then run it again if it is still wanted",
            )
