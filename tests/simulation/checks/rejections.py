"""Laws 7 and 8: bad input is refused by both regions alike, and stops nothing."""

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
