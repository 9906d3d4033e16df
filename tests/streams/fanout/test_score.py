"""Ekko's score on hand-computed values, custom scores, and the percentile window against the reference DDSketch."""

import numpy as np
import pytest
from ddsketch import DDSketch

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.signals import Shares
from ekko.streams.fanout.rows import RowUpdates
from ekko.streams.fanout.score import Score, Scored, ScoreWindow, ekko_score, l1_norms, load_score
from ekko.streams.fanout.sorting import Sorter


def updates(deltas: list[list[int]], created: list[bool] | None = None) -> RowUpdates:
    rows = np.array(deltas, np.int32)
    count = len(rows)
    flags = np.array(created if created is not None else [False] * count)
    return RowUpdates(np.arange(count, dtype=np.uint64), rows, flags, np.zeros(count, np.int64))


def scored(norms: list[float], created: list[bool], mean: float, share: float) -> Scored:
    count = len(norms)
    keys, deltas = np.arange(count, dtype=np.uint64), np.zeros((count, 1), np.int32)
    return Scored("m", "t", keys, deltas, np.array(created), np.array(norms), mean_norm=mean, request_share=share)


def test_score_by_hand() -> None:
    updates = scored([2.0, 8.0, 0.0], [False, True, True], mean=4.0, share=0.5)
    by_hand = [(0.5 + 0) * 0.5, (2.0 + 1) * 0.5, (0.0 + 1) * 0.5]
    assert ekko_score(updates).tolist() == by_hand


def test_norms_are_in_parameter_units_and_survive_the_smallest_integer() -> None:
    norms = l1_norms(np.array([[256, -512], [-(2**31), 0]], np.int32), fraction_bits=8)
    assert norms.tolist() == [3.0, 2.0**23]


def double_score(updates: Scored) -> np.ndarray:
    return 2 * updates.norms


def bad_score(updates: Scored) -> np.ndarray:
    return updates.norms[:1] * np.nan


def test_custom_score_by_dotted_name() -> None:
    assert load_score("tests.streams.fanout.test_score:double_score")(scored([1.5], [False], 1, 1)).tolist() == [3.0]


@pytest.mark.parametrize("name", ["nowhere:score", "math:nothing", "tests.streams.fanout.test_score:bad_score", "math"])
def test_bad_custom_scores_are_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError):
        load_score(name)


@pytest.mark.parametrize("percent", [0.0, 1.0, 50.0, 92.0, 99.0, 100.0])
def test_percentiles_are_those_of_the_reference_sketch_and_within_one_percent(percent: float) -> None:
    scores = np.random.default_rng(5).lognormal(0.0, 2.0, 20_000)
    window, reference = ScoreWindow(accuracy=0.01), DDSketch(relative_accuracy=0.01)
    window.add(scores[:5_000], 10.0)
    window.add(scores[5_000:], 12.0)
    for score in scores:
        reference.add(score)
    lower, upper = window.percentile(percent, 12.0)
    assert 2 * upper / (1.01 / 0.99 + 1) == pytest.approx(reference.get_quantile_value(percent / 100), rel=1e-9)
    assert lower < float(np.percentile(scores, percent, method="lower")) <= upper


def test_window_slides_and_an_empty_one_lets_everything_be_express() -> None:
    window = ScoreWindow(window_s=60.0, slices=6)
    assert window.percentile(99.0, 0.0) == (0.0, 0.0)
    window.add(np.array([100.0]), 5.0)
    window.add(np.array([1.0]), 30.0)
    assert window.percentile(100.0, 59.0) == pytest.approx((100.0, 100.0), rel=0.01)
    assert window.percentile(100.0, 65.0) == pytest.approx((1.0, 1.0), rel=0.01)  # the slice of 0..10 s is gone
    assert window.percentile(100.0, 300.0) == (0.0, 0.0)


def test_zero_scores_count_and_are_below_every_threshold_but_zero() -> None:
    window = ScoreWindow()
    window.add(np.array([0.0, 0.0, 0.0, 5.0]), 1.0)
    assert window.percentile(50.0, 1.0) == (0.0, 0.0)
    assert window.percentile(100.0, 1.0) == pytest.approx((5.0, 5.0), rel=0.01)


TABLE = TableDeclaration("t", 1, fraction_bits=0)


def sorter_at(percentile: float, score: Score = ekko_score, *, excess: float | None = None) -> Sorter:
    return Sorter(percentile, score, "custom", excess=None if excess is None else lambda _: excess)


def express(sorter: Sorter, rows: list[list[int]], created: list[bool] | None = None, model: str = "m") -> list[bool]:
    batch = updates(rows, created)
    return [bool(row) for row in sorter.urgent(model, TABLE, batch, 1.0)]


def test_the_largest_and_the_created_go_first() -> None:
    sorter = sorter_at(80.0)
    assert express(sorter, [[1], [2], [3], [4], [100]]) == [False, False, False, True, True]
    # Mean norm is now about 22 (local, no monitor): a created row scores above 1, an old one of norm 3 far below.
    assert express(sorter, [[3], [3]], [True, False]) == [True, False]


def test_models_compete_by_their_share_of_requests() -> None:
    sorter = sorter_at(80.0)
    busy = Shares("busy", 1, request_share=0.9, mean_gradient=10.0, written_us=0)
    quiet = Shares("quiet", 2, request_share=0.1, mean_gradient=10.0, written_us=0)
    sorter.learn({"busy": busy, "quiet": quiet}, models=2)
    express(sorter, [[10]] * 5, model="quiet")
    assert express(sorter, [[10]] * 5, model="busy") == [True] * 5
    assert express(sorter, [[10]] * 5, model="quiet") == [False] * 5


def test_equal_scores_are_express_only_where_bandwidth_is_unlimited() -> None:
    assert express(sorter_at(99.0), [[10]] * 5) == [True] * 5
    limited = sorter_at(99.0, excess=4.0)
    assert express(limited, [[10]] * 500) == [False] * 500
    assert express(limited, [[10], [1_000]]) == [False, True]
    assert express(sorter_at(0.0, excess=1.0), [[10]] * 5) == [True] * 5


def test_rows_that_are_alike_at_the_percentile_are_express_where_the_link_carries_them() -> None:
    alike = [[1_000 + row] for row in range(30)]  # 3 % of the rows, with one score but for chance
    rows = [[1]] * 970 + alike
    assert express(sorter_at(99.0, excess=4.0), rows) == [False] * 970 + [True] * 30
    few = express(sorter_at(99.0, excess=1.5), rows)
    assert not any(few[:970])
    assert 5 <= sum(few) <= 15, "the highest of them, the bucket of the percentile or one beyond it"


def test_a_link_that_carries_less_than_the_percentile_says_gets_the_highest_scores() -> None:
    rows = [[int(value)] for value in np.geomspace(1_000, 2e9, 10_000)]
    chosen = express(sorter_at(99.0, excess=0.1), rows)
    assert 0 < sum(chosen) <= 10, "a tenth of the hundredth part at most"
    assert all(chosen[-sum(chosen) :]), "the highest"
    assert 90 <= sum(express(sorter_at(99.0, excess=1.0), rows)) <= 100


def test_shares_outlive_a_silent_monitor() -> None:
    seen: list[Scored] = []

    def spy(rows: Scored) -> np.ndarray:
        seen.append(rows)
        return rows.norms

    sorter = sorter_at(0.0, spy)
    assert express(sorter, [[4], [8]]) == [True, True]
    assert (seen[-1].mean_norm, seen[-1].request_share) == (6.0, 1.0)  # nobody has said anything: the local mean
    sorter.learn({"m": Shares("m", 1, request_share=0.25, mean_gradient=2.0, written_us=0)}, models=4)
    express(sorter, [[4]])
    express(sorter, [[4]])
    assert (seen[-1].mean_norm, seen[-1].request_share) == (2.0, 0.25)


def test_norms_are_reported_once() -> None:
    sorter = sorter_at(50.0)
    express(sorter, [[3], [-5]])
    assert sorter.take_report("m") == (8.0, 2)
    assert sorter.take_report("m") == (0.0, 0)
