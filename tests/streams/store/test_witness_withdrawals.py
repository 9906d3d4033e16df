"""Withdrawn states but for the one that a witness keeps."""

from ekko.schemas.epochs import EpochRange
from ekko.streams.applier.instructions import without_state


def test_only_the_state_kept_is_left_out() -> None:
    ranges = [EpochRange(2, 4), EpochRange(6, 6), EpochRange(8, 12)]
    assert list(without_state(ranges, None)) == ranges
    assert list(without_state(ranges, 5)) == ranges
    assert list(without_state(ranges, 6)) == [ranges[0], ranges[2]]
    assert list(without_state(ranges, 8)) == [*ranges[:2], EpochRange(9, 12)]
    assert list(without_state(ranges, 10)) == [*ranges[:2], EpochRange(8, 9), EpochRange(11, 12)]
