"""The serving loop: rankings for the right user, and what happens when a region is away."""

import numpy as np

from ekko.ops.demo.server import CANDIDATES, SHOWN, RegionServing, best, ranking_batch
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions
from ekko.schemas.errors import ConnectionFailed

STREAM = synthetic_interactions(1, SyntheticShape(interactions=500, users=20, items=30, periods=2))


class Client:
    """A region of which a test says whether it answers."""

    region = "east"
    away = False

    def lookup(self, _table, keys):
        if self.away:
            raise ConnectionFailed("away")
        rows = np.zeros((len(keys), 4), np.float32)
        return type("Rows", (), {"values": rows})


class Reporter:
    """Counts requests."""

    reported = 0

    def requests(self):
        self.reported += 1


def test_all_candidates_are_ranked_for_the_visiting_user():
    visit = 300
    batch = ranking_batch(STREAM, visit)
    keys, columns = batch.keys[batch.index], STREAM.user_columns
    assert keys.shape == (CANDIDATES, STREAM.keys.shape[1])
    assert (keys[:, :columns] == STREAM.keys[visit, :columns]).all()
    assert np.array_equal(keys[:, columns:], STREAM.keys[visit + 1 - CANDIDATES : visit + 1, columns:])


def test_the_first_visitor_is_served_too():
    assert len(ranking_batch(STREAM, 0).labels) == 1


def test_best_first():
    assert best(np.float32([0, 5, -1, 3])).tolist() == [1, 3, 0, 2]
    assert len(best(np.zeros(100, np.float32))) == SHOWN


def test_requests_and_failures_are_counted_and_requests_reported():
    client, reporter = Client(), Reporter()
    serving = RegionServing(client, reporter)
    batch = ranking_batch(STREAM, 300)
    assert serving.serve(batch) is not None
    client.away = True
    assert serving.serve(batch) is None
    client.away = False
    assert serving.serve(batch) is not None
    assert reporter.reported == 2
    status = serving.status()
    assert (status.requests, status.failed) == (2, 1)
    assert status.lookup_ms_p50 is not None
