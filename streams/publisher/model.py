"""What a publisher knows of its model: catalogue and topic, checked when it starts and followed while it runs."""

import threading

from ekko.schemas import topics
from ekko.schemas.codec import Kind, own_schemas
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import CatalogueConflict, ConfigurationError, TopicMissing
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster
from ekko.streams.publisher.batches import BATCH_OVERHEAD, BlockLimits

_MIN_BLOCK_BYTES = 1_024


class PublishedModel:
    """Thread-safe view of a live model.

    Attributes:
        topic: its source log.
        block_bytes: what the topic takes as one record, encoded and uncompressed.

    Raises:
        ConfigurationError: no such model.
        TopicMissing, CatalogueConflict: its topic is not there or not as declared.
        ConnectionFailed: no broker answers within `timeout_s`.
    """

    def __init__(self, cluster: Cluster, name: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self.topic = topics.deltas(name)
        self.catalogue = Catalogue(cluster)
        try:
            self.catalogue.refresh(timeout_s)
            self.declaration = self.catalogue.model(name)
            _check_schema(self.catalogue)
            self.block_bytes = _block_bytes(cluster, self.declaration)
        except BaseException:
            self.catalogue.close()
            raise

    @property
    def incarnation(self) -> int:
        """The model's; a model of the same name created later has another."""
        assert self.declaration.incarnation is not None
        return self.declaration.incarnation

    def table(self, name: str) -> tuple[TableDeclaration, int]:
        """A table, and the catalogue offset (end) as of which it is known; one added a moment ago is found, too.

        Raises:
            ConfigurationError: no such table, or the model was deleted.
        """
        with self._lock:
            self.catalogue.poll()
            self._follow()
            if name not in {table.name for table in self.declaration.tables}:
                self.catalogue.refresh(self._timeout_s)
                self._follow()
            return self.declaration.table(name), self.catalogue.end

    def _follow(self) -> None:
        live = self.catalogue.models.get(self.declaration.name)
        if live is None or live.incarnation != self.declaration.incarnation:
            raise ConfigurationError(
                f"model {self.declaration.name} was deleted" + ("" if live is None else " and created anew"),
                hint="make a new Publisher if the model is declared again; its parameters start anew",
            )
        self.declaration = live

    def limits(self) -> BlockLimits:
        """What a block may hold now."""
        return BlockLimits(self.declaration.max_rows_a_block, self.block_bytes)

    def close(self) -> None:
        """Release the connection."""
        self.catalogue.close()


def _check_schema(catalogue: Catalogue) -> None:
    """Readers of other versions can only read our blocks if the schema stands in the catalogue."""
    own = next(schema for schema in own_schemas() if schema.kind == Kind.DELTA_BLOCK)
    if not catalogue.has_schema(own):
        raise ConfigurationError(
            f"the catalogue does not hold the schema {own.fingerprint:016x} in which this version writes delta blocks",
            hint="run `ekko model apply FILE` once with this version of Ekko, with any declaration file",
        )


def _block_bytes(cluster: Cluster, model: ModelDeclaration) -> int:
    topic = topics.deltas(model.name)
    partitions = cluster.topics().get(topic)
    if partitions is None:
        raise TopicMissing(f"topic {topic} does not exist", hint="make it with `ekko model apply FILE`")
    if partitions != model.shards:
        raise CatalogueConflict(
            f"topic {topic} has {partitions} partition(s), but model {model.name} has {model.shards} shards",
            hint=f"`ekko model delete {model.name}` and apply again, or declare a model of another name",
        )
    limit = int(cluster.topic_settings(topic)["max.message.bytes"]) - BATCH_OVERHEAD
    if limit < _MIN_BLOCK_BYTES:
        raise CatalogueConflict(
            f"topic {topic} takes only {limit + BATCH_OVERHEAD} bytes a message, too few for any block",
            hint="raise its max.message.bytes",
        )
    return min(limit, MAX_BLOCK_BYTES)
