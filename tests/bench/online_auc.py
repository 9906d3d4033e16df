"""Online AUC behind a thin link: what serving would have predicted there, against a region whose link is not cut.

Both regions read the same source log at the same time. Every batch of the seeded drift stream is predicted, before it
is learnt, with the rows that each region had when it was published: its lanes are replayed by their brokers' time
stamps. The interval is of paired differences: batches are drawn with replacement (bootstrap), both regions alike.
"""

from typing import NamedTuple

import numpy as np

from ekko.ops.demo.model import logits
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import Codec
from ekko.schemas.quantize import to_float
from ekko.streams.log import Cluster, read_all
from tests.bench.fanout_lab import MODEL
from tests.bench.freshness import FRACTION_BITS
from tests.bench.load import Drift

RESAMPLES = 400


class Paired(NamedTuple):
    """Online AUC uncut and cut, and the 95 % interval of the difference (cut - uncut)."""

    uncut: float
    cut: float
    low: float
    high: float
    interactions: int


def measure(cluster: Cluster, uncut: str, cut: str, stream: Drift, since_us: int) -> Paired:
    """Compare the regions `uncut` and `cut` over the batches published since a time."""
    times = _publish_times(cluster)
    assert len(times) <= len(stream.batches), "the stream came round again: its labels would be known already"
    measured = [number for number, time_us in enumerate(times) if time_us >= since_us]
    scores = {region: _scores(cluster, region, stream, times, measured) for region in (uncut, cut)}
    labels = [stream.batches[number].labels for number in measured]
    both = [_auc(np.concatenate(scores[region]), np.concatenate(labels)) for region in (uncut, cut)]
    dice, differences = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = dice.integers(0, len(measured), len(measured))
        truth = np.concatenate([labels[index] for index in drawn])
        there, here = (
            _auc(np.concatenate([scores[region][index] for index in drawn]), truth) for region in (uncut, cut)
        )
        differences.append(here - there)
    low, high = np.percentile(differences, (2.5, 97.5))
    return Paired(both[0], both[1], float(low), float(high), sum(map(len, labels)))


def _publish_times(cluster: Cluster) -> list[int]:
    """When each batch was published, microseconds: the blocks of one call have one time."""
    codec = Codec()
    blocks = [codec.decode(record.value) for record in read_all(cluster, topics.deltas(MODEL), timeout_s=120)]
    return sorted({block.published_us for block in blocks if isinstance(block, DeltaBlock)})


def _scores(cluster: Cluster, region: str, stream: Drift, times: list[int], measured: list[int]) -> list[np.ndarray]:
    """Logits of the measured batches with the region's rows at their times."""
    codec, sent = Codec(), []
    for lane in Lane:
        for record in read_all(cluster, topics.lane(MODEL, region, lane), timeout_s=120):
            block: LaneBlock = codec.decode(record.value)
            if len(block.keys):
                sent.append((record.timestamp_ms * 1_000, block))
    sent.sort(key=lambda entry: entry[0])
    sums = np.zeros(stream.initial.shape, np.int32)
    found, next_ = [], 0
    for number in measured:
        while next_ < len(sent) and sent[next_][0] <= times[number]:
            block = sent[next_][1]
            sums[np.searchsorted(stream.keys, block.keys)] += block.deltas
            next_ += 1
        batch = stream.batches[number]
        at = np.searchsorted(stream.keys, batch.keys)
        found.append(logits(stream.initial[at] + to_float(sums[at], FRACTION_BITS), batch))
    return found


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: how often a liked interaction is scored above one that is not (ties count half)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    liked = labels > 0.5
    pairs = int(liked.sum()) * int((~liked).sum())
    return float((ranks[liked].sum() - liked.sum() * (liked.sum() + 1) / 2) / pairs) if pairs else float("nan")
