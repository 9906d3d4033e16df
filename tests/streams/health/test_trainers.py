"""Silence of trainers: each is judged by itself, and one that ends properly is not silent."""

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import ENDED, PUBLISHED, TRAINER, TRAINERS_HEARD, Signal
from ekko.streams.health.board import Board, Track
from ekko.streams.health.buckets import Total
from ekko.streams.health.proposals import from_signal
from ekko.streams.health.trainers import FACTOR, GIVEN_UP_S, LEAST_S, TrainerWatch, in_words


class Source:
    """A source log's trainers as fan-outs tell of them, second by second."""

    def __init__(self, since_s: int = 0) -> None:
        self.watch = TrainerWatch(since_s * 1_000_000)
        self.now_s = 1_000_000

    def say(self, metric: str, source: str, event_s: float) -> None:
        self.watch.hear(Signal("ctr", "east", source, metric, 1.0, 1, int(event_s * 1e6)))

    def seconds(self, count: int, *trainers: str, every: int = 1, behind_s: float = 0.0) -> None:
        for _ in range(count):
            self.now_s += 1
            for trainer in trainers if self.now_s % every == 0 else ():
                self.say(PUBLISHED, TRAINER + trainer, self.now_s - behind_s)
            self.say(TRAINERS_HEARD, "fanout/a", self.now_s)

    def end(self, trainer: str) -> None:
        self.say(ENDED, TRAINER + trainer, self.now_s + 0.5)

    @property
    def silent(self) -> list[str]:
        return sorted(self.watch.silent())


def test_one_of_two_vanishes_and_comes_back() -> None:
    source = Source()
    source.seconds(20, "a", "b")
    source.seconds(int(LEAST_S) - 1, "b")  # a block came at the latest when that was told
    assert source.silent == []
    source.seconds(1, "b")
    assert source.silent == ["a"]
    silent = source.watch.silent()["a"]
    assert (silent.silent_s, silent.usual_s) == (LEAST_S + 1, 1)
    assert in_words({"a": silent}) == "trainer a has published nothing for 31 s, its longest pause was 1 s"
    source.seconds(1, "a", "b")
    assert source.silent == []


def test_one_that_closes_its_publisher_or_is_blocked_is_not_silent() -> None:
    source = Source()
    source.seconds(20, "a", "b")
    source.end("a")
    source.seconds(300, "b")
    assert source.silent == []
    source.seconds(20, "a", "b")  # started again, or allowed
    source.seconds(60, "b")
    assert source.silent == ["a"]
    source.end("a")  # whoever blocks it, or closes it after a long pause, ends the alarm
    assert source.silent == []


def test_what_was_sent_before_the_end_and_is_read_after_it_is_no_new_life() -> None:
    source = Source()
    source.seconds(20, "a")
    source.end("a")
    source.seconds(20, "a", behind_s=25)  # a fan-out far behind, or one that reads again after a takeover
    source.seconds(300)
    assert source.silent == []


def test_old_blocks_read_again_make_nobody_forgotten() -> None:
    source = Source()
    source.end("a")
    source.now_s += 10
    source.seconds(20, "a")
    source.say(PUBLISHED, TRAINER + "a", 999_000)  # from before its end
    source.seconds(int(LEAST_S) + 1)
    assert source.silent == ["a"]


def test_what_was_published_before_the_watch_began_counts_for_nothing() -> None:
    source = Source(since_s=1_000_000)
    source.seconds(20, "far-behind", behind_s=100)  # perhaps it has ended since, unheard
    source.seconds(20, "a")
    source.seconds(int(LEAST_S) + 1)
    assert source.silent == ["a"]


def test_the_usual_pause_decides() -> None:
    source = Source()
    source.seconds(300, "slow", every=20)
    source.seconds(int(FACTOR * 20) - 1)
    assert source.silent == []
    source.seconds(1)
    assert source.silent == ["slow"]


def test_whoever_was_hardly_ever_heard_is_not_judged() -> None:
    source = Source()
    source.seconds(3, "once")
    source.seconds(500)
    assert source.silent == []


def test_while_no_fanout_reads_nobody_is_silent() -> None:
    source = Source()
    source.seconds(20, "a")
    source.now_s += 3_600
    source.seconds(10)
    assert source.silent == []
    source.seconds(10, "a")
    assert source.silent == []


def test_several_regions_say_the_same_with_clocks_of_their_own() -> None:
    source = Source()
    for _ in range(40):
        source.seconds(1, "a")
        source.say(PUBLISHED, TRAINER + "a", source.now_s)
        source.say(TRAINERS_HEARD, "fanout/b", source.now_s - 7)
    assert source.silent == []
    source.seconds(int(LEAST_S) + 1)
    assert source.silent == ["a"]


def test_one_that_stays_away_is_given_up() -> None:
    source = Source()
    source.seconds(20, "a")
    source.seconds(int(LEAST_S + GIVEN_UP_S) - 1)
    assert source.silent == ["a"]
    source.seconds(1)
    assert source.silent == []


def test_of_many_the_longest_silent_are_named() -> None:
    source = Source()
    names = [f"t{number}" for number in range(5)]
    for missing in range(5):
        source.seconds(10, *names[missing:])
    source.seconds(40)
    words = in_words(source.watch.silent())
    assert [f"trainer {name} " in words for name in names] == [True, True, True, False, False]
    assert words.endswith("2 more trainers are silent")


def test_the_verdict_names_it_and_ends_with_it() -> None:
    board = Board(["ctr"], Track(0, frozenset(), list), bucket_s=1, now_s=1_000_000)
    verdicts: list[tuple[Verdict, str]] = []

    def second(now_s: int, *trainers: str, ended: bool = False) -> None:
        sources = [(PUBLISHED, TRAINER + trainer) for trainer in trainers]
        for metric, source in [*sources, (TRAINERS_HEARD, "fanout/a"), *([(ENDED, TRAINER + "a")] if ended else [])]:
            board.hear(Signal("ctr", "east", source, metric, 1.0, 1, now_s * 1_000_000))
        for told in board.judge(now_s, lambda *_: Total()):
            proposal = from_signal(told)
            assert proposal is not None
            verdicts.append((proposal.verdict, proposal.reason))

    for now_s in range(1_000_000, 1_000_020):
        second(now_s, "a")
    for now_s in range(1_000_020, 1_000_060):
        second(now_s)
    assert {verdict for verdict, _ in verdicts[:4]} == {Verdict.HEALTHY}
    assert verdicts[-1][0] is Verdict.SUSPECT
    assert "trainer a has published nothing for 4" in verdicts[-1][1]
    assert board.silent()["ctr"].keys() == {"a"}
    second(1_000_060, ended=True)
    for now_s in range(1_000_061, 1_000_075):
        second(now_s)
    assert verdicts[-1] == (Verdict.HEALTHY, "")
