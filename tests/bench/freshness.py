"""Of all that was published, which part was in time? Recomputed from the raw source log and a region's lanes."""

from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import Barrier
from ekko.streams.fanout.score import l1_norms
from ekko.streams.log import Cluster, Partition, Record, read_range
from tests.bench.fanout_lab import MODEL, SHARDS, Positions
from tests.bench.load import TABLE

SLO_S = 2.4
FRACTION_BITS = 24
_OFFSETS = np.uint64(1) << np.uint64(40)


class Freshness(NamedTuple):
    """Published row updates, weighted by their score, p_g + p_u (p_m is 1 for the only model).

    All times run from entry into `publish` to readable at a replica with its store on disk, of every update by itself.

    Attributes:
        late: share that became readable after more than SLO_S, or not at all.
        floor: share outside the rows that matter most, were as many sent in SLO_S as were sent on average: no order of
            sending whole rows can do much better with these bytes.
        updates: how many there were.
        express_p99_ms: of the updates that put a row in the express lane: of each row there, the oldest one that was
            read for the transaction which sent it.
        oldest_p99_ms: of all rows in the express lane, the oldest delta in each: what had waited as bulk, where an
            urgent update took it along, else the same as before.
        promoted_p99_ms: the same of only those rows in the express lane for whose key others had waited as bulk:
            updates of a low score, which waited as such, and then travelled with an urgent one.
        promoted_share: how many of the rows in the express lane these are.
        top_p99_ms: of the updates whose score is at or above the 99th percentile of the ten seconds up to them, found
            exactly and without the product: what ought to be express by itself.
    """

    late: float
    floor: float
    updates: int
    express_p99_ms: float
    oldest_p99_ms: float
    promoted_p99_ms: float
    promoted_share: float
    top_p99_ms: float


class _Updates(NamedTuple):
    """Row updates of one shard's source log; `weight` is the l1 norm until `_weighted`."""

    code: np.ndarray
    offset: np.ndarray
    published_us: np.ndarray
    weight: np.ndarray
    created: np.ndarray

    def since(self, began_us: int) -> "_Updates":
        return _Updates(*(column[self.published_us >= began_us] for column in self))


class _Sent(NamedTuple):
    """Rows of the lanes; `before`: up to where the source log was read for the transaction before the row's."""

    code: np.ndarray
    before: np.ndarray
    upto: np.ndarray
    seen_us: np.ndarray
    express: np.ndarray


def measure(cluster: Cluster, region: str, since_us: int, readable: Positions) -> Freshness:
    """Freshness of everything published since a time; `readable`: how far a replica of the region was, and when.

    A row update is there with the first lane record that holds its key, of its arrival epoch, and was planned after the
    update had been read (`upto`): what waits for a key is sent as one sum.
    """
    logs = _weighted([_published(_read(cluster, topics.deltas(MODEL), shard)) for shard in range(SHARDS)])
    waited, tops, express, floors = [], [], [], []
    for shard, (everything, top) in enumerate(zip(logs, _top(logs), strict=True)):
        published = everything.since(since_us)
        sent = _sent(
            [(lane, record) for lane in Lane for record in _read(cluster, topics.lane(MODEL, region, lane), shard)],
            readable,
        )
        waited.append((_seen_us(published, sent) - published.published_us) / 1e3)
        tops.append(top[everything.published_us >= since_us])
        express.append(_express_ms(everything, sent, since_us))
        floors.append(_floor(published, sent))
    waited_ms = np.concatenate(waited)
    weight = np.concatenate([log.since(since_us).weight for log in logs])
    late = float(weight[waited_ms > SLO_S * 1e3].sum() / weight.sum())
    fresh_ms, oldest_ms = np.concatenate(express, axis=1)
    promoted = oldest_ms > fresh_ms
    return Freshness(
        late,
        float(np.mean(floors)),
        len(weight),
        _p99(fresh_ms),
        _p99(oldest_ms),
        _p99(oldest_ms[promoted]),
        float(promoted.mean()),
        _p99(waited_ms[np.concatenate(tops)]),
    )


def _p99(values: np.ndarray) -> float:
    return float(np.percentile(values, 99, method="lower")) if len(values) else float("nan")


def _floor(published: _Updates, sent: _Sent) -> float:
    began, ended = published.published_us.min(), published.published_us.max()
    rows = int(np.count_nonzero((sent.seen_us >= began) & (sent.seen_us <= ended)) * SLO_S * 1e6 / (ended - began))
    first = published.published_us < began + SLO_S * 1e6
    _, place = np.unique(published.code[first], return_inverse=True)
    weights = np.sort(np.bincount(place, published.weight[first]))[::-1]
    return float(weights[rows:].sum() / weights.sum())


def _weighted(logs: list[_Updates]) -> list[_Updates]:
    """The shards' updates with p_g + p_u for their norms' weight: norms are compared with the mean over all shards."""
    mean = float(np.concatenate([log.weight for log in logs]).mean())
    return [log._replace(weight=log.weight / mean + log.created) for log in logs]


def _top(logs: list[_Updates]) -> list[np.ndarray]:
    """Which updates are in the hundredth part of highest score of the ten seconds up to them, over all shards."""
    times_us = np.concatenate([log.published_us for log in logs])
    weight = np.concatenate([log.weight for log in logs])
    top = np.zeros(len(weight), np.bool_)
    for now in np.unique(times_us):
        window = (times_us > now - 10e6) & (times_us <= now)
        then = times_us == now
        top[then] = weight[then] >= np.percentile(weight[window], 99)
    return np.split(top, np.cumsum([len(log.code) for log in logs])[:-1])


def _express_ms(published: _Updates, sent: _Sent, since_us: int) -> np.ndarray:
    """Latencies of rows in the express lane, [2, N]: of the oldest update read for their transaction, of the oldest."""
    known = np.unique(np.concatenate([sent.code, published.code]))
    place = np.searchsorted(known, published.code).astype(np.uint64) * _OFFSETS + published.offset
    order = np.argsort(place, kind="stable")
    place, times_us = place[order], published.published_us[order]
    base = np.searchsorted(known, sent.code).astype(np.uint64) * _OFFSETS
    by_time = np.lexsort((sent.upto, base))
    again = np.append(False, base[by_time][1:] == base[by_time][:-1])
    waited_from = np.zeros(len(base), np.uint64)
    waited_from[by_time] = np.where(again, np.roll(sent.upto[by_time], 1), 0)
    first, newest = np.searchsorted(place, base + sent.before), np.searchsorted(place, base + sent.upto)
    oldest = np.searchsorted(place, base + waited_from)
    rows = np.flatnonzero(sent.express & (first < newest))
    rows = rows[times_us[first[rows]] >= since_us]
    return np.stack([sent.seen_us[rows] - times_us[updates[rows]] for updates in (first, oldest)]) / 1e3


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
    return _Updates(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _sent(records: list[tuple[Lane, Record]], readable: Positions) -> _Sent:
    codec = Codec()
    blocks: list[tuple[Lane, Record, LaneBlock]] = [
        (lane, record, codec.decode(record.value)) for lane, record in records
    ]
    plans = np.unique([0, *(block.upto for _, _, block in blocks)]).astype(np.uint64)
    columns = []
    for lane, record, block in blocks:
        count = len(block.keys)
        before = plans[max(0, int(np.searchsorted(plans, np.uint64(block.upto))) - 1)]
        offsets, times_us = readable.get((lane, block.shard), (np.empty(0), np.empty(0)))
        at = int(np.searchsorted(offsets, record.offset, side="right"))
        seen_us = times_us[at] if at < len(times_us) else np.inf
        filled = (np.full(count, value, np.uint64) for value in (before, block.upto))
        columns.append(
            (
                _codes(block.keys, block.arrival),
                *filled,
                np.full(count, seen_us, np.float64),
                np.full(count, lane is Lane.EXPRESS),
            )
        )
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
