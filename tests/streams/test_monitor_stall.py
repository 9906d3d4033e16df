"""When a monitor counts as stalled, in places and looks alone."""

from ekko.streams.log import Bounds, Partition
from ekko.streams.monitor.stall import StallWatch

ONE, OTHER = Partition("one.signals", 0), Partition("other.signals", 0)


def looks(watch: StallWatch, times: int, bounds: Bounds, place: int | None) -> list[dict[Partition, int]]:
    places = {} if place is None else {ONE: place}
    return [watch.look({ONE: bounds}, places) for _ in range(times)]


def test_signals_that_wait_while_no_place_moves_are_a_stall() -> None:
    watch = StallWatch(patience=3)
    assert looks(watch, 4, Bounds(0, 10), 7) == [{}, {}, {}, {ONE: 3}]


def test_a_place_that_moves_is_none() -> None:
    watch = StallWatch(patience=3)
    assert all(watch.look({ONE: Bounds(0, 100)}, {ONE: place}) == {} for place in range(20))


def test_nothing_that_waits_is_none() -> None:
    watch = StallWatch(patience=3)
    assert looks(watch, 20, Bounds(0, 10), 10) == [{}] * 20


def test_signals_that_retention_deleted_wait_for_nobody() -> None:
    watch = StallWatch(patience=3)
    assert looks(watch, 20, Bounds(10, 10), 4) == [{}] * 20


def test_a_group_without_a_place_begins_at_the_end() -> None:
    watch = StallWatch(patience=3)
    assert looks(watch, 10, Bounds(0, 10), None) == [{}] * 10
    assert looks(watch, 3, Bounds(0, 12), None) == [{}, {}, {ONE: 2}]


def test_the_count_starts_anew_after_progress() -> None:
    watch = StallWatch(patience=3)
    looks(watch, 3, Bounds(0, 10), 7)
    assert looks(watch, 3, Bounds(0, 10), 8) == [{}] * 3
    assert looks(watch, 1, Bounds(0, 10), 8) == [{ONE: 2}]


def test_only_what_waits_is_named() -> None:
    watch = StallWatch(patience=1)
    bounds, places = {ONE: Bounds(0, 5), OTHER: Bounds(0, 9)}, {ONE: 5, OTHER: 2}
    watch.look(bounds, places)
    assert watch.look(bounds, places) == {OTHER: 7}
