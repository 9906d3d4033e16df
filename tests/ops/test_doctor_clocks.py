"""`ekko doctor`, the judging of clocks and topics: pure functions."""

import pytest

from ekko.ops.doctor.clocks import check_fanouts, judge
from ekko.ops.doctor.topics import check_copies, check_settings
from ekko.schemas.codec import Codec, encode
from ekko.schemas.replicas import Member
from ekko.streams.catalogue.topics import catalogue, shares
from ekko.streams.log import Partition, Record

STAMP_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("ahead_s", "uncertain_s", "level"),
    [(0.1, 0.0, "ok"), (-0.4, 0.0, "ok"), (0.7, 0.0, "warning"), (0.7, 0.5, "ok"), (-7.0, 0.0, "problem")],
)
def test_clocks_that_differ(ahead_s: float, uncertain_s: float, level: str) -> None:
    found = judge("this machine", ahead_s, uncertain_s)
    assert found.level == level
    assert ("ahead of" if ahead_s > 0 else "behind") in found.text
    assert bool(found.fix) == (level != "ok")


def test_each_fanouts_machine_is_judged_by_its_last_word() -> None:
    def said(name: str, ahead_s: float, offset: int) -> Record:
        written = int(STAMP_MS * 1e3 + ahead_s * 1e6)
        member = Member("east", name, "", ready=True, started_us=1, written_us=written)
        return Record(Partition("ekko.east.fanouts", 0), offset, name.encode(), encode(member), STAMP_MS)

    found = list(check_fanouts("east", [said("a", 30.0, 0), said("b", -20.0, 1), said("a", 0.2, 2)], Codec()))
    assert [finding.level for finding in found] == ["ok", "problem"]
    assert "fan-out b of region east: 20.000 s" in found[1].text


def test_more_retention_than_declared_is_fine_and_less_is_not() -> None:
    need = catalogue()
    assert list(check_settings(need, dict(need.spec.settings), "k:9092")) == []
    (trimmed,) = check_settings(need, {**need.spec.settings, "retention.bytes": "1000000"}, "k:9092")
    assert "retention.bytes=1000000" in trimmed.text
    assert trimmed.fix.endswith("--entity-name ekko.catalogue --alter --add-config retention.bytes=-1")
    assert list(check_settings(shares(), {"cleanup.policy": "compact", "retention.ms": "-1"}, "k:9092")) == []


def test_copies() -> None:
    assert list(check_copies({"a": (1, 1)}, ["a"], brokers=1)) == []
    (single,) = check_copies({"a": (1, 1), "b": (3, 3)}, ["a", "b"], brokers=3)
    assert (single.level, "a: one copy only" in single.text) == ("warning", True)
    (lagging,) = check_copies({"a": (3, 2)}, ["a"], brokers=3)
    assert lagging.level == "problem"
