"""Percentiles within 1 %, lanes apart, recovery apart, intervals for signals."""

import numpy as np
import pytest

from ekko.schemas.blocks import Lane
from ekko.storage.serving.served import Percentiles
from ekko.streams.applier.latency import LatencyRecorder


def test_percentiles_are_within_one_per_cent_of_the_exact_ones() -> None:
    rng = np.random.default_rng(3)
    express, bulk = rng.lognormal(2, 1, 20_000), rng.lognormal(4, 1, 5_000)
    recorder = LatencyRecorder("ctr")
    recorder.observe(Lane.EXPRESS, express.tolist(), recovering=False)
    recorder.observe(Lane.BULK, bulk.tolist(), recovering=False)
    recorder.observe(Lane.BULK, [60_000.0], recovering=True)
    summary = recorder.summary()
    for told, values in (
        (summary.express, express),
        (summary.bulk, bulk),
        (summary.all, np.concatenate([express, bulk])),
    ):
        assert told.count == len(values)
        assert told.p50 == pytest.approx(np.quantile(values, 0.5), rel=0.011)
        assert told.p99 == pytest.approx(np.quantile(values, 0.99), rel=0.03)
        assert told.max == values.max()
    assert (summary.recovery.count, summary.recovery.max) == (1, 60_000.0)


def test_intervals_sum_up_what_came_since_the_last_one() -> None:
    recorder = LatencyRecorder("ctr")
    assert recorder.summary().all == Percentiles(0)
    recorder.observe(Lane.EXPRESS, [1.0, 2.0], recovering=False)
    recorder.observe(Lane.BULK, [4.0], recovering=False)
    recorder.observe(Lane.BULK, [400.0], recovering=True)
    assert recorder.take_interval() == (7.0, 3)
    assert recorder.take_interval() == (0.0, 0)
