"""A model, its lanes written by hand as a fan-out would, and what their rows must add up to."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, Settled
from ekko.schemas.hashing import shard_of
from ekko.storage.store import Store
from ekko.streams.applier import Applier
from ekko.streams.applier.applied import AppliedObserver
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition
from tests.streams.visible import await_visible

TABLES = (TableDeclaration("embedding", 4), TableDeclaration("bias", 1))
REGION = "east"
MEMORY_BYTES = 256 * 1024 * 1024


class Lanes:
    """Writes lane records of one model in one region, each call in one transaction, and keeps the truth."""

    def __init__(self, broker: Broker, cluster: KafkaCluster, name: str, *, shards: int = 2, region: str = "") -> None:
        self.cluster = cluster
        self._bootstrap = broker.bootstrap
        self.region_name = region or f"{REGION}-{name[-12:]}".strip("-")
        model = ModelDeclaration(name, shards, 1, TABLES)
        declare(cluster, Declarations((RegionDeclaration(self.region_name),), (model,)), KafkaCluster)
        self.catalogue = Catalogue(cluster)
        self.catalogue.refresh()
        self.model = self.catalogue.model(name)
        self.region = self.catalogue.region(self.region_name)
        self.reconnect()
        self.seqs: dict[int, int] = defaultdict(int)
        self._last: dict[tuple[int, Lane], int] = defaultdict(int)
        self.epoch = 0
        self.generation = 0
        self.voids: tuple[EpochRange, ...] = ()
        self.withdrawn: tuple[EpochRange, ...] = ()
        self._settled = Settled()
        self.rows: list[tuple[str, int, np.ndarray, np.ndarray]] = []
        """(table, effective epoch, keys, deltas) of everything sent."""
        self.written: dict[Partition, int] = {}
        """Partition -> offset after the last record that was committed to it."""

    def reconnect(self) -> None:
        """A new writer, after the broker was away."""
        self._writer = self.cluster.transactional_writer(f"test.{self.model.name}")

    def partition(self, lane: Lane, shard: int) -> Partition:
        return Partition(topics.lane(self.model.name, self.region_name, lane), shard)

    def write(self, *outputs: Output) -> list[int]:
        offsets = self._writer.transact(outputs)
        self.written |= {output.partition: offset + 1 for output, offset in zip(outputs, offsets, strict=True)}
        return offsets

    def block(self, lane: Lane, shard: int, **fields: object) -> LaneBlock:
        """The next block of a lane, its seq and all; `fields` replace what is right by what a test wants."""
        self.seqs[shard] += 1
        seq, previous = self.seqs[shard], self._last[shard, lane]
        self._last[shard, lane] = seq
        right = {
            "incarnation": self.model.incarnation,
            "region_incarnation": self.region.incarnation,
            "shard": shard,
            "seq": seq,
            "previous": previous,
            "arrival": self.epoch,
            "effective": self.epoch,
            "generation": self.generation,
            "settled": self._settled,
            "upto": 0,
            "catalogue": self.catalogue.end,
        }
        return LaneBlock(**{**right, **fields})  # type: ignore[arg-type]

    def rows_block(
        self, lane: Lane, shard: int, keys: np.ndarray, deltas: np.ndarray, table: str = "embedding", **fields: object
    ) -> Output:
        """A block of rows, which count from now on."""
        assert (shard_of(keys, self.model.shards) == shard).all()
        block = self.block(lane, shard, table=table, keys=keys, deltas=deltas, **fields)
        self.rows.append((table, block.effective, keys, deltas))
        return Output(self.partition(lane, shard), encode(block))

    def keys(self, shard: int, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """`count` keys of a shard: the first ones, or drawn from the first 4 x count."""
        some = np.arange(8 * self.model.shards * count, dtype=np.uint64)
        mine = some[shard_of(some, self.model.shards) == shard]
        return mine[:count] if rng is None else rng.choice(mine[: 4 * count], count, replace=False)

    def send(
        self, lane: Lane, shard: int, count: int = 3, value: int = 1, table: str = "embedding", **fields: object
    ) -> None:
        """Add `value` to every column of the first `count` keys of a shard."""
        deltas = np.full((count, self.model.table(table).dim), value, np.int32)
        self.write(self.rows_block(lane, shard, self.keys(shard, count), deltas, table, **fields))

    def barrier(self, void: EpochRange | None = None) -> Barrier:
        """The barrier that opens the next epoch; a void raises the generation."""
        if void is not None:
            self.voids, self.generation = (*self.voids, void), self.generation + 1
        self.epoch += 1
        return Barrier(
            self.model.incarnation or 0, self.epoch, self.generation, self.catalogue.end, self.voids, self.withdrawn
        )

    def control(self, barrier: Barrier) -> None:
        self.write(Output(Partition(topics.control(self.model.name), 0), encode(barrier), b"control"))

    def mark(self, barrier: Barrier, shards: Sequence[int] | None = None) -> None:
        """Forward a barrier to the lanes; everything sent before is settled."""
        self._settled = Settled(0, barrier.epoch, barrier.generation)
        chosen = range(self.model.shards) if shards is None else shards
        self.write(
            *(
                Output(self.partition(Lane.EXPRESS, shard), encode(self.block(Lane.EXPRESS, shard, barrier=barrier)))
                for shard in chosen
            )
        )

    def trim(self, partition: Partition, offset: int) -> None:
        """What retention does: records before `offset` are gone. None that is open is ever deleted, so none is."""
        await_visible(self.cluster, partition.topic)
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        (future,) = admin.delete_records([TopicPartition(*partition, offset)]).values()
        future.result(120)

    def truth(self, table: str = "embedding", before_epoch: int | None = None) -> dict[int, list[int]]:
        """Rows of a store that never saw what is void; zero rows are absent."""
        sums: dict[int, np.ndarray] = {}
        for name, effective, keys, deltas in self.rows:
            void = any(effective in void for void in self.voids)
            if name == table and not void and (before_epoch is None or effective < before_epoch):
                for key, delta in zip(keys.tolist(), deltas, strict=True):
                    sums[key] = sums.get(key, np.zeros(deltas.shape[1], np.int32)) + delta
        return {key: row.tolist() for key, row in sorted(sums.items()) if row.any()}

    def close(self) -> None:
        self._writer.close()
        self.catalogue.close()


class Replica:
    """A store with its applier, as a process has them, driven step by step."""

    def __init__(
        self,
        lanes: Lanes,
        folder: Path,
        shards: Sequence[int] | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        observer: AppliedObserver | None = None,
        witness: int | None = None,
    ) -> None:
        self._cluster = lanes.cluster
        self._lanes = lanes
        self.catalogue = Catalogue(lanes.cluster)
        self.catalogue.refresh()
        assert lanes.region.incarnation is not None
        self.store = Store.open(
            folder,
            lanes.model,
            range(lanes.model.shards) if shards is None else shards,
            region_incarnation=lanes.region.incarnation,
            memory_bytes=memory_bytes,
        )
        self.applier = Applier(
            *(lanes.cluster, lanes.region, lanes.model, self.store, self.catalogue), observer=observer, witness=witness
        )
        self.now_s = 0.0

    def settle(self, flush: bool = False) -> None:
        """Step until everything in the log is dealt with; time stands still, so only what is urgent is flushed."""
        deadline = time.monotonic() + 300
        quiet = 0
        while quiet < 3:
            assert time.monotonic() < deadline, "never quiet"
            if self.applier.step(self.now_s, 0.02) or not self._at_the_ends():
                quiet = 0
            else:
                quiet += 1
                time.sleep(0.02)
        if flush:
            self.store.flush(self.applier.state)

    def _at_the_ends(self) -> bool:
        """Whether all that was written is read.

        Transaction markers are written after a commit is answered, on a busy machine long after. Until then the stable
        ends know nothing of what was committed; `written` does.
        """
        positions = self.applier._progress.positions(self.applier.halted)
        ends = self._cluster.bounds(positions)
        written = self._lanes.written
        return self.applier.stopped is not None or all(
            max(ends[partition].end, written.get(partition, 0)) <= offset for partition, offset in positions.items()
        )

    def rows(self, table: str = "embedding", as_of: int | None = None) -> dict[int, list[int]]:
        parts = list(self.store.items(table, as_of))
        return dict(
            sorted((key, row.tolist()) for keys, rows in parts for key, row in zip(keys.tolist(), rows, strict=True))
        )

    def kill(self) -> None:
        """End without a last flush (test_store_process.py kills a real process)."""
        self.applier._readers.close()
        self.store.close()
        self.catalogue.close()

    def stop(self) -> None:
        """End in good order."""
        self.applier.close()
        self.store.close()
        self.catalogue.close()
