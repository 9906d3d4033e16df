"""When a store flushes: by time, by rows, by need of memory; and not all the time."""

from ekko.storage.disk.pace import FlushPace


def due(pace: FlushPace, now_s: float, *, busy: bool = False, touched: int = 1, pressed: bool = False) -> bool:
    return pace.due(now_s, busy=busy, touched=touched, pressed=pressed)


def test_every_two_seconds_or_half_a_million_rows() -> None:
    pace = FlushPace()
    assert [due(pace, now) for now in (100.0, 101.9, 102.0)] == [False, False, True]
    assert [due(pace, now) for now in (102.01, 103.9, 104.02)] == [False, False, True]
    assert due(FlushPace(), 5.0, touched=500_000)


def test_a_flush_is_followed_by_as_long_a_rest_unless_memory_needs_one() -> None:
    pace = FlushPace()
    assert due(pace, 10.0, touched=500_000)
    assert not due(pace, 12.0, busy=True, touched=900_000, pressed=True)
    assert [due(pace, now, touched=900_000) for now in (13.0, 15.9, 16.0)] == [False, False, True]
    assert not due(pace, 20.0, touched=900_000)
    assert due(pace, 20.5, pressed=True)


def test_a_flush_that_was_given_up_is_due_at_once_and_nothing_rests() -> None:
    pace = FlushPace()
    assert [due(pace, now) for now in (10.0, 12.0)] == [False, True]
    assert not due(pace, 20.0, busy=True)
    pace.given_up()
    assert due(pace, 20.1)
    assert [due(pace, now) for now in (20.2, 20.4)] == [False, False]
