"""A model on a real broker for tests of the fan-out: what is published, and what came through the lanes."""

import time
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.quantize import Int32s
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, read_all
from tests.waiting import PATIENCE_S

Sums = dict[tuple[str, int], Int32s]
"""(table, key) -> row; a zero row is an absent one."""


class Source:
    """Declares a model with one table `embedding` and a region of the same name, and publishes into it."""

    def __init__(
        self, cluster: KafkaCluster, name: str, *, shards: int = 2, groups: int = 1, dim: int = 4, regional: str = ""
    ) -> None:
        self.cluster, self.name, self.shards, self.dim = cluster, name, shards, dim
        model = ModelDeclaration(name, shards=shards, shard_groups=groups, tables=(TableDeclaration("embedding", dim),))
        region = RegionDeclaration(name, bootstrap=regional)
        declare(
            cluster, Declarations((region,), (model,)), lambda region: KafkaCluster(region.bootstrap, timeout_s=60.0)
        )
        catalogue = Catalogue(cluster)
        catalogue.refresh()
        self.catalogue_end = catalogue.end
        self.incarnation = catalogue.model(name).incarnation or 0
        catalogue.close()
        self.epoch = 0
        self.published: Sums = {}
        self._random = np.random.default_rng(7)
        self._writer = cluster.writer()

    def publish(self, keys: UInt64s, deltas: Int32s | None = None) -> None:
        """Send one block a shard and wait for its acknowledgement."""
        rows = self._random.integers(-1000, 1000, (len(keys), self.dim), dtype=np.int32) if deltas is None else deltas
        add_rows(self.published, "embedding", keys, rows)
        shards = shard_of(keys, self.shards)
        for shard in set(shards.tolist()):
            mine = shards == shard
            block = DeltaBlock(
                self.incarnation,
                "embedding",
                shard,
                keys[mine],
                rows[mine],
                catalogue=self.catalogue_end,
                published_us=time.time_ns() // 1_000,
            )
            self.send(shard, encode(block))
        assert self._writer.flush(120) == 0

    def send(self, shard: int, value: bytes | None) -> None:
        """Append raw bytes to the source log."""
        self._writer.send(Output(Partition(topics.deltas(self.name), shard), value))

    def barrier(self) -> None:
        """Open the next epoch in every shard."""
        self.epoch += 1
        value = encode(Barrier(self.incarnation, self.epoch, 0, self.catalogue_end))
        writer = self.cluster.transactional_writer(topics.manager_transactional_id(self.name, self.incarnation))
        writer.transact([Output(Partition(topics.deltas(self.name), shard), value) for shard in range(self.shards)])
        writer.close()


def add_rows(sums: Sums, table: str, keys: UInt64s, rows: Int32s) -> None:
    """Add rows to sums, dropping what becomes zero."""
    for key, row in zip(keys.tolist(), rows, strict=True):
        total = sums.get((table, key), np.zeros_like(row)) + row
        if total.any():
            sums[table, key] = total
        else:
            sums.pop((table, key), None)


def read_lanes(cluster: KafkaCluster, name: str, region: str) -> dict[int, list[LaneBlock]]:
    """Every committed lane record by shard, in order of seq.

    While a fan-out runs, seqs may be missing for a moment: a commit's markers reach the lanes one after the other.
    """
    codec = Codec()
    blocks: dict[int, list[LaneBlock]] = defaultdict(list)
    for lane in Lane:
        for record in read_all(cluster, topics.lane(name, region, lane)):
            blocks[record.partition.number].append(codec.decode(record.value))
    for sent in blocks.values():
        sent.sort(key=lambda block: block.seq)
    return blocks


def check_exact(cluster: KafkaCluster, source: "Source", region: str) -> None:
    """The lanes carry every seq once, and in sum exactly what was published.

    What is told to be settled is committed, but perhaps not yet visible in the other lane: that is waited for.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not _whole(blocks := read_lanes(cluster, source.name, region)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for shard, sent in blocks.items():
        seqs = [block.seq for block in sent]
        assert seqs == list(range(1, len(seqs) + 1)), f"shard {shard}: seqs {seqs}"
    sums = sums_of(blocks)
    assert sums.keys() == source.published.keys()
    assert all(np.array_equal(row, source.published[at]) for at, row in sums.items())


def _whole(blocks: Mapping[int, list[LaneBlock]]) -> bool:
    return all(sent[-1].seq == len(sent) for sent in blocks.values())


def sums_of(blocks: Mapping[int, list[LaneBlock]]) -> Sums:
    """What a store that applied all these records holds."""
    sums: Sums = {}
    for sent in blocks.values():
        for block in sent:
            if len(block.keys):
                add_rows(sums, block.table, block.keys, block.deltas)
    return sums


def settled_epochs(blocks: Mapping[int, list[LaneBlock]]) -> list[int]:
    """The epoch that each shard's last record calls settled."""
    return [sent[-1].settled.epoch for _, sent in sorted(blocks.items())]
