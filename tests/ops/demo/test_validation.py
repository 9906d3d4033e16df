"""Live and stale scores: the same interactions, the same scorer, other rows."""

import numpy as np
import pytest

from ekko.ops.demo.model import Batch
from ekko.ops.demo.poison import Phase
from ekko.ops.demo.validation import RegionValidation
from ekko.schemas.errors import ConnectionFailed

VOCABULARY = np.uint64([1, 2])
LIKED = Batch(np.uint64([1]), np.array([[0]]), np.float32([[1]]), np.float32([1]))
OTHER = Batch(np.uint64([2]), np.array([[0]]), np.float32([[1]]), np.float32([0]))


class Region:
    """A region whose rows are set by hand."""

    def __init__(self) -> None:
        self.weights = {1: 0.0, 2: 0.0}
        self.away = False

    def lookup(self, keys):
        if self.away:
            raise ConnectionFailed("store is away")
        return np.float32([[self.weights[key], 0] for key in keys.tolist()])


@pytest.fixture
def region() -> Region:
    return Region()


@pytest.fixture
def validation(region: Region) -> RegionValidation:
    return RegionValidation(2, VOCABULARY, region.lookup, refresh_s=20)


def score_both(validation: RegionValidation, now_s: float) -> None:
    validation.score(LIKED, now_s)
    validation.score(OTHER, now_s)


def test_live_sees_new_rows_at_once_and_stale_at_the_next_mark(region: Region, validation: RegionValidation):
    score_both(validation, 0)
    region.weights = {1: 3.0, 2: -3.0}
    score_both(validation, 19.9)
    assert validation.live.recent().auc == 0.875  # two pairs of ties, later right
    assert validation.stale.recent().auc == 0.5
    score_both(validation, 20.0)
    assert validation.stale.recent().auc > 0.5


def test_both_take_the_same_interactions_even_when_the_region_is_away(region: Region, validation: RegionValidation):
    score_both(validation, 0)
    region.away = True
    score_both(validation, 1)
    region.away = False
    score_both(validation, 2)
    assert validation.live.run().count == validation.stale.run().count == 4
    assert validation.unserved == 2


def test_a_mark_missed_while_away_is_made_up_for(region: Region, validation: RegionValidation):
    score_both(validation, 0)
    region.weights, region.away = {1: 3.0, 2: -3.0}, True
    score_both(validation, 21)
    region.away = False
    score_both(validation, 22)
    assert validation.stale.run().auc == validation.live.run().auc


def test_later_meters_leave_the_untrained_start_out(validation: RegionValidation):
    score_both(validation, 0)
    score_both(validation, 10)
    assert validation.live_later.run().count == 0
    score_both(validation, 20)
    assert validation.live_later.run().count == validation.stale_later.run().count == 2


def test_live_scores_are_kept_by_phase_too(validation: RegionValidation):
    validation.score(LIKED, 0)
    validation.score(OTHER, 1, Phase.POISONED)
    assert [validation.phases[phase].run().count for phase in Phase] == [1, 1, 0]
