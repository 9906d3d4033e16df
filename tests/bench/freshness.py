"""Of all that was published, which part was in time? Recomputed from the raw source log and a region's lanes."""

from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import Barrier
from ekko.streams.fanout.score import l1_norms
from ekko.streams.log import Cluster, Partition, Record, read_range
from tests.bench.fanout_lab import MODEL, SHARDS
from tests.bench.load import TABLE

SLO_S = 2.4
FRACTION_BITS = 24
_OFFSETS = np.uint64(1) << np.uint64(40)


class Freshness(NamedTuple):
    """Published row updates, weighted by their score, p_g + p_u (p_m is 1 for the only model).

    Attributes:
        late: share that reached the region more than SLO_S after `publish` was called, or not at all.
        updates: how many there were.
        urgent_p99_ms: 99th percentile of the latencies of each second's hundredth part with the highest scores: what
            ought to be express by itself (a row that is lifted after it has waited is as old as its oldest delta).
    """

    late: float
    updates: int
    urgent_p99_ms: float


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
    waited, weights, urgents = [], [], []
    for shard in range(SHARDS):
        published = _published(_read(cluster, topics.deltas(MODEL), shard), since_us)
        sent = [(lane, record) for lane in Lane for record in _read(cluster, topics.lane(MODEL, region, lane), shard)]
        waited.append((_seen_us(published, sent) - published.published_us) / 1e3)
        weights.append(published.weight)
        urgents.append(_urgent(published))
    waited_ms, weight = np.concatenate(waited), np.concatenate(weights)
    late = float(weight[waited_ms > SLO_S * 1e3].sum() / weight.sum())
    urgent = waited_ms[np.concatenate(urgents)]
    return Freshness(late, len(weight), float(np.percentile(urgent, 99, method="lower")))


def _urgent(published: _Updates) -> np.ndarray:
    """Which updates are in the hundredth part of highest score of their second."""
    second = (published.published_us // 1e6).astype(np.int64)
    urgent = np.zeros(len(second), np.bool_)
    for now in np.unique(second):
        then = np.flatnonzero(second == now)
        urgent[then] = published.weight[then] >= np.percentile(published.weight[then], 99)
    return urgent


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
            created = np.zeros(count) if block.created is None else block.created.astype(np.float64)
            times, offsets = np.full(count, block.published_us, np.float64), np.full(count, record.offset, np.uint64)
            columns.append((_codes(block.keys, arrival), offsets, times, norms, created))
    code, offset, published_us, norms, created = (np.concatenate(column) for column in zip(*columns, strict=True))
    return _Updates(code, offset, published_us, norms / norms.mean() + created)


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


def sum_rows(records: list[Record]) -> dict[str, np.ndarray]:
    """What all the blocks add up to: `keys`, and `rows` int32[keys, dim] modulo 2**32, without those that are zero."""
    codec = Codec()
    decoded = [codec.decode(record.value) for record in records]
    blocks = [block for block in decoded if isinstance(block, DeltaBlock | LaneBlock) and len(block.keys)]
    keys, place = np.unique(np.concatenate([block.keys for block in blocks]), return_inverse=True)
    rows = np.zeros((len(keys), blocks[0].deltas.shape[1]), np.int32)
    np.add.at(rows, place, np.concatenate([block.deltas for block in blocks]))
    there = rows.any(axis=1)
    return {"keys": keys[there], "rows": rows[there]}
