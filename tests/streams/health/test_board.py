"""The board: every signal counts in the second in which it happened, and labels may come late."""

from collections import defaultdict

import pytest

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import OVERFLOWED, Signal
from ekko.streams.health.board import Board
from ekko.streams.health.buckets import Total
from ekko.streams.health.detectors import GRADIENTS
from ekko.streams.health.proposals import Proposal, from_signal
from ekko.streams.health.standard import LOSS, labelled_detectors, standard_detectors, tracks, unlabelled_detectors

START_S, BROKEN_S, GRACE_S = 1_000, 1_060, 2.0


class Stream:
    """Signals as they arrive, a second at a time, and what the board tells."""

    def __init__(self, label_delay_s: float) -> None:
        self.board = Board(["ctr"], *tracks(GRACE_S, label_delay_s), bucket_s=1.0, now_s=START_S)
        self.totals: dict[tuple[str, str, float], Total] = defaultdict(Total)
        self.told: list[tuple[int, Proposal]] = []

    def arrive(self, metric: str, value: float, event_s: int, cohort: str = "live") -> None:
        signal = Signal("ctr", "east", "serving/1", metric, 100 * value, 100, event_s * 1_000_000, cohort)
        if self.board.accepts(signal):
            self.totals[metric, cohort, event_s] += Total(signal.value, signal.count)

    def judge(self, now_s: int) -> None:
        signals = self.board.judge(now_s, lambda _, metric, cohort, start: self.totals[metric, cohort, start])
        proposals = [proposal for signal in signals if (proposal := from_signal(signal)) is not None]
        self.told += [(now_s, proposal) for proposal in proposals]

    def first(self, verdict: Verdict) -> tuple[int, Proposal]:
        return next(each for each in self.told if each[1].verdict is verdict)


def play(stream: Stream, labels_late_s: int, *, overflows: bool = False, until_s: int = 1_400) -> None:
    """Labels come so late, the live cohort is worse from `BROKEN_S` on; or rows overflow then, and labels are fine."""
    for now_s in range(START_S, until_s):
        broken = now_s >= BROKEN_S
        stream.arrive(GRADIENTS, 0.1, now_s)
        if broken and overflows:
            stream.arrive(OVERFLOWED, 1.0, now_s)
        event_s = now_s - labels_late_s
        stream.arrive(LOSS, 0.9 if event_s >= BROKEN_S and not overflows else 0.5, event_s)
        stream.arrive(LOSS, 0.5, event_s, "baseline")
        stream.judge(now_s)


@pytest.mark.parametrize("late_s", [1, 30, 120])
def test_labels_that_come_late_count_when_they_happened(late_s: int) -> None:
    stream = Stream(label_delay_s=late_s + 1)
    play(stream, late_s)
    told_s, proposal = stream.first(Verdict.CORRUPT)
    assert proposal.since_us / 1e6 == pytest.approx(BROKEN_S, abs=5), "of the requests, not of their labels"
    assert told_s == pytest.approx(BROKEN_S + late_s + GRACE_S, abs=8)
    assert "log_loss is 0.74 live and 0.5 at the baseline" in proposal.reason, "a window of five: two good, three bad"
    assert stream.board.late == 0
    assert all(proposal.since_us / 1e6 >= BROKEN_S for _, proposal in stream.told if proposal.since_us)


def test_what_comes_later_than_was_told_is_counted_and_judged_by_nobody() -> None:
    stream = Stream(label_delay_s=10)
    play(stream, labels_late_s=30, until_s=1_200)
    assert {proposal.verdict for _, proposal in stream.told} == {Verdict.HEALTHY}
    assert stream.board.late == 2 * 200


def test_guards_that_need_no_labels_do_not_wait_for_them() -> None:
    stream = Stream(label_delay_s=121)
    play(stream, labels_late_s=120, overflows=True, until_s=1_100)
    told_s, proposal = stream.first(Verdict.CORRUPT)
    assert told_s == pytest.approx(BROKEN_S + GRACE_S + 3, abs=1)
    assert proposal.reason == "100 observations of overflowed_rows"


def test_trouble_with_labels_ends_when_they_are_well_again() -> None:
    stream = Stream(label_delay_s=31)
    play(stream, 30, until_s=1_150)
    for now_s in range(1_150, 1_250):
        for cohort in ("live", "baseline"):
            stream.arrive(LOSS, 0.5, now_s - 30, cohort)
        stream.judge(now_s)
    assert stream.told[-1][1].verdict is Verdict.HEALTHY


def test_the_two_kinds_of_detectors_are_all_there_are() -> None:
    both = [type(detector).__name__ for detector in labelled_detectors() + unlabelled_detectors()]
    assert sorted(both) == sorted([*(type(detector).__name__ for detector in standard_detectors()), "Occurs"])
