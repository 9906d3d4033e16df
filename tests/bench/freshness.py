"""Of all that was published, which part was in time? Recomputed from the raw source log and a region's lanes."""

from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import Barrier
from ekko.streams.fanout.score import Float64s, l1_norms
from ekko.streams.log import Cluster, Partition, Record, read_range
from tests.bench.fanout_lab import MODEL, SHARDS
from tests.bench.load import TABLE

SLO_S = 2.4
FRACTION_BITS = 24
_OFFSETS = np.uint64(1) << np.uint64(40)


class Freshness(NamedTuple):
    """Published row updates, weighted by their score (of one model: in proportion to the l1 norm of the delta).

    Attributes:
        late: share that reached the region more than SLO_S after `publish` was called, or not at all.
        updates: how many there were. express_ms: latencies of the express blocks that carried them, milliseconds.
    """

    late: float
    updates: int
    express_ms: Float64s


class _Updates(NamedTuple):
    code: np.ndarray
    offset: np.ndarray
    published_us: np.ndarray
    weight: np.ndarray


def measure(cluster: Cluster, region: str, since_us: int) -> Freshness:
    """Freshness of everything published since a time.

    A row update is there with the first lane record that holds its key, of its arrival epoch, and was planned after the
    update had been read (`upto`): what waits for a key is sent as one sum. When it was there is when the region's
    broker appended that record: its commit and a replica's work (some ms) are not in it.
    """
    late = total = 0.0
    updates = 0
    express: list[float] = []
    for shard in range(SHARDS):
        published = _published(_read(cluster, topics.deltas(MODEL), shard), since_us)
        sent = [(lane, record) for lane in Lane for record in _read(cluster, topics.lane(MODEL, region, lane), shard)]
        seen_us = _seen_us(published, sent)
        is_late = seen_us - published.published_us > SLO_S * 1e6
        late += float(published.weight[is_late].sum())
        total += float(published.weight.sum())
        updates += len(published.code)
        express += _express_ms(sent, since_us)
    return Freshness(late / total, updates, np.array(express))


def _read(cluster: Cluster, topic: str, shard: int) -> list[Record]:
    partition = Partition(topic, shard)
    return read_range(cluster, {partition: cluster.bounds([partition])[partition].low}, timeout_s=120)


def _codes(keys: np.ndarray, arrival: int) -> np.ndarray:
    return keys.astype(np.uint64) + (np.uint64(arrival) << np.uint64(32))


def _published(records: list[Record], since_us: int) -> _Updates:
    codec, arrival, columns = Codec(), 0, []
    for record in records:
        block = codec.decode(record.value)
        if isinstance(block, Barrier):
            arrival = block.epoch
        elif isinstance(block, DeltaBlock) and block.published_us >= since_us and block.table == TABLE:
            count = len(block.keys)
            norms = l1_norms(block.deltas, FRACTION_BITS)
            times = np.full(count, block.published_us, np.float64)
            columns.append((_codes(block.keys, arrival), np.full(count, record.offset, np.uint64), times, norms))
    return _Updates(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _seen_us(published: _Updates, sent: list[tuple[Lane, Record]]) -> np.ndarray:
    codec, columns = Codec(), []
    for _, record in sent:
        block: LaneBlock = codec.decode(record.value)
        count = len(block.keys)
        upto, seen = np.full(count, block.upto, np.uint64), np.full(count, record.timestamp_ms * 1e3)
        columns.append((_codes(block.keys, block.arrival), upto, seen))
    code, upto, seen = (np.concatenate(column) for column in zip(*columns, strict=True))
    known = np.unique(np.concatenate([code, published.code]))
    place = np.searchsorted(known, code).astype(np.uint64) * _OFFSETS + upto
    order = np.argsort(place, kind="stable")
    place, seen = place[order], seen[order]
    rank = np.searchsorted(known, published.code).astype(np.uint64)
    # `upto` is the end of what was read, so a record with upto = offset does not hold the update yet.
    first = np.searchsorted(place, rank * _OFFSETS + published.offset, side="right")
    inside = np.minimum(first, len(place) - 1)
    found = (first < len(place)) & (place[inside] // _OFFSETS == rank)
    return np.where(found, seen[inside], np.inf)


def _express_ms(sent: list[tuple[Lane, Record]], since_us: int) -> list[float]:
    codec = Codec()
    blocks = [(record, codec.decode(record.value)) for lane, record in sent if lane is Lane.EXPRESS]
    return [
        record.timestamp_ms - block.published_us / 1e3
        for record, block in blocks
        if len(block.keys) and block.published_us >= since_us
    ]


def add_block(sums: dict[int, np.ndarray], record: Record, keys: int, dim: int) -> None:
    """Add a record's rows to `sums[0]`, int32[keys, dim] modulo 2**32."""
    block = Codec().decode(record.value)
    if isinstance(block, DeltaBlock | LaneBlock) and len(block.keys):
        total = sums.setdefault(0, np.zeros((keys, dim), np.int32))
        np.add.at(total, block.keys.astype(np.intp), block.deltas)
