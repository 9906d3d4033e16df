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
        floor: share outside the rows that matter most, were as many sent in SLO_S as were sent on average: no order of
            sending whole rows can do much better with these bytes.
        updates: how many there were.
        express_p99_ms: of every row in the express lane, since the publishing of the update that put it there, which is
            the newest one in it (a row that is lifted has waited before).
        top_p99_ms: of the updates whose score is at or above the 99th percentile of the ten seconds up to them, found
            exactly and without the product: what ought to be express by itself.
    """

    late: float
    floor: float
    updates: int
    express_p99_ms: float
    top_p99_ms: float


class _Updates(NamedTuple):
    code: np.ndarray
    offset: np.ndarray
    published_us: np.ndarray
    weight: np.ndarray

    def since(self, began_us: int) -> "_Updates":
        return _Updates(*(column[self.published_us >= began_us] for column in self))


class _Sent(NamedTuple):
    code: np.ndarray
    upto: np.ndarray
    seen_us: np.ndarray
    express: np.ndarray


def measure(cluster: Cluster, region: str, since_us: int) -> Freshness:
    """Freshness of everything published since a time.

    A row update is there with the first lane record that holds its key, of its arrival epoch, and was planned after the
    update had been read (`upto`): what waits for a key is sent as one sum. When it was there is when the region's
    broker appended that record: its commit and a replica's work (some ms) are not in it.
    """
    waited, weights, tops, express, floors = [], [], [], [], []
    for shard in range(SHARDS):
        everything = _published(_read(cluster, topics.deltas(MODEL), shard))
        published = everything.since(since_us)
        sent = _sent(
            [(lane, record) for lane in Lane for record in _read(cluster, topics.lane(MODEL, region, lane), shard)]
        )
        waited.append((_seen_us(published, sent) - published.published_us) / 1e3)
        weights.append(published.weight)
        tops.append(_top(everything)[everything.published_us >= since_us])
        express.append(_express_ms(published, sent))
        floors.append(_floor(published, sent))
    waited_ms, weight = np.concatenate(waited), np.concatenate(weights)
    late = float(weight[waited_ms > SLO_S * 1e3].sum() / weight.sum())
    top_ms, express_ms = waited_ms[np.concatenate(tops)], np.concatenate(express)
    return Freshness(late, float(np.mean(floors)), len(weight), _p99(express_ms), _p99(top_ms))


def _p99(values: np.ndarray) -> float:
    return float(np.percentile(values, 99, method="lower")) if len(values) else float("nan")


def _floor(published: _Updates, sent: _Sent) -> float:
    began, ended = published.published_us.min(), published.published_us.max()
    rows = int(np.count_nonzero((sent.seen_us >= began) & (sent.seen_us <= ended)) * SLO_S * 1e6 / (ended - began))
    first = published.published_us < began + SLO_S * 1e6
    _, place = np.unique(published.code[first], return_inverse=True)
    weights = np.sort(np.bincount(place, published.weight[first]))[::-1]
    return float(weights[rows:].sum() / weights.sum())


def _top(published: _Updates) -> np.ndarray:
    """Which updates are in the hundredth part of highest score of the ten seconds up to them."""
    top = np.zeros(len(published.code), np.bool_)
    for now in np.unique(published.published_us):
        window = (published.published_us > now - 10e6) & (published.published_us <= now)
        then = published.published_us == now
        top[then] = published.weight[then] >= np.percentile(published.weight[window], 99)
    return top


def _express_ms(published: _Updates, sent: _Sent) -> np.ndarray:
    """Latency of each row in the express lane since its newest update."""
    known = np.unique(np.concatenate([sent.code, published.code]))
    place = np.searchsorted(known, published.code).astype(np.uint64) * _OFFSETS + published.offset
    order = np.argsort(place, kind="stable")
    place, times = place[order], published.published_us[order]
    rows = sent.express & np.isin(sent.code, published.code)
    rank = np.searchsorted(known, sent.code[rows]).astype(np.uint64)
    newest = np.searchsorted(place, rank * _OFFSETS + sent.upto[rows], side="left") - 1
    found = (newest >= 0) & (place[newest] // _OFFSETS == rank)
    return (sent.seen_us[rows][found] - times[newest[found]]) / 1e3


def _read(cluster: Cluster, topic: str, shard: int) -> list[Record]:
    partition = Partition(topic, shard)
    return read_range(cluster, {partition: cluster.bounds([partition])[partition].low}, timeout_s=120)


def _codes(keys: np.ndarray, arrival: int) -> np.ndarray:
    return keys.astype(np.uint64) + (np.uint64(arrival) << np.uint64(32))


def _published(records: list[Record]) -> _Updates:
    codec, arrival, columns = Codec(), 0, []
    for record in records:
        block = codec.decode(record.value)
        if isinstance(block, Barrier):
            arrival = block.epoch
        elif isinstance(block, DeltaBlock) and block.table == TABLE:
            count = len(block.keys)
            norms = l1_norms(block.deltas, FRACTION_BITS)
            created = np.zeros(count) if block.created is None else block.created.astype(np.float64)
            times, offsets = np.full(count, block.published_us, np.float64), np.full(count, record.offset, np.uint64)
            columns.append((_codes(block.keys, arrival), offsets, times, norms, created))
    code, offset, published_us, norms, created = (np.concatenate(column) for column in zip(*columns, strict=True))
    return _Updates(code, offset, published_us, norms / norms.mean() + created)


def _sent(records: list[tuple[Lane, Record]]) -> _Sent:
    codec, columns = Codec(), []
    for lane, record in records:
        block: LaneBlock = codec.decode(record.value)
        count = len(block.keys)
        upto, seen = np.full(count, block.upto, np.uint64), np.full(count, record.timestamp_ms * 1e3)
        columns.append((_codes(block.keys, block.arrival), upto, seen, np.full(count, lane is Lane.EXPRESS)))
    return _Sent(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _seen_us(published: _Updates, sent: _Sent) -> np.ndarray:
    known = np.unique(np.concatenate([sent.code, published.code]))
    place = np.searchsorted(known, sent.code).astype(np.uint64) * _OFFSETS + sent.upto
    order = np.argsort(place, kind="stable")
    place, seen = place[order], sent.seen_us[order]
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
