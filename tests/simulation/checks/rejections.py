"""Laws 7 and 8: bad input is refused by both regions alike, and stops nothing."""

from collections.abc import Mapping

from tests.simulation.lanes import RegionLog
from tests.simulation.truth import Truth


def check_rejections(truth: Truth, logs: list[RegionLog]) -> None:
    """Exactly the records that the plain rules refuse are in every region's rejected topic, for the same reasons."""
    for log in logs:
        refused = set(log.rejected) - truth.undecided
        assert refused == truth.rejected, (
            f"region {log.region}: refused wrongly {sorted(refused - truth.rejected)}, "
            f"let pass wrongly {sorted(truth.rejected - refused)}"
        )
        assert log.rejected == logs[0].rejected, f"regions {logs[0].region} and {log.region} differ in their reasons"


def check_founded_rejections(founded: RegionLog, other: RegionLog, begins: Mapping[int, int]) -> None:
    """A founded region refuses what the others do, from the source offset on at which it begins in each shard."""
    expected = {origin: reason for origin, reason in other.rejected.items() if origin[1] >= begins[origin[0]]}
    assert founded.rejected == expected, f"region {founded.region} refuses {founded.rejected}, expected {expected}"
