"""What a monitor knows of trainers after it was away: read back from the signals, without Faust."""

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.errors import TopicMissing
from ekko.schemas.signals import ENDED, PUBLISHED, TRAINER, TRAINERS_HEARD, Signal
from ekko.streams.health.trainers import GIVEN_UP_S, LEAST_S, RECALLED_S
from ekko.streams.log import Output, Partition, TopicSpec
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.monitor.following import Following
from ekko.streams.monitor.recall import COUNTS, Recalled, recall

MODEL = "ctr"
PARTITION = Partition(topics.signals(MODEL), 0)
LONG = int(LEAST_S) + 10


class Log(MemoryCluster):
    """A model's signals, by the broker's clock; `behind_s` is by how much everybody else's is slow."""

    def __init__(self, behind_s: float = 0.0) -> None:
        self.now_s, self.behind_s = 1_000_000.0, behind_s
        super().__init__(MemoryBroker(lambda: self.now_s))
        self.create_topics([TopicSpec(PARTITION.topic, 1)])
        self._writer = self.writer()

    def write(self, *values: bytes) -> None:
        for value in values:
            self._writer.send(Output(PARTITION, value))
        self._writer.flush(60.0)

    def say(self, metric: str, source: str, model: str = MODEL) -> None:
        event_us = int((self.now_s - self.behind_s) * 1e6)
        self.write(encode(Signal(model, "east", source, metric, 1.0, 1, event_us)))

    def seconds(self, count: int, *trainers: str) -> None:
        for _ in range(count):
            self.now_s += 1
            for trainer in trainers:
                self.say(PUBLISHED, TRAINER + trainer)
            self.say(TRAINERS_HEARD, "fanout/a")

    def recalled(self) -> Recalled:
        return recall(self, Codec(), MODEL)

    @property
    def silent(self) -> list[str]:
        return sorted(self.recalled().watch.silent())


def test_one_that_died_while_nobody_looked_is_silent_and_one_that_ended_is_not() -> None:
    log = Log()
    log.seconds(20, "dies", "ends", "goes-on")
    log.say(ENDED, TRAINER + "ends")
    log.seconds(LONG, "goes-on")
    watch, end = log.recalled()
    assert {name: silent.silent_s for name, silent in watch.silent().items()} == {"dies": LONG + 1}
    assert end == log.bounds([PARTITION])[PARTITION].end


def test_whoever_looks_again_at_once_knows_the_same() -> None:
    log = Log()
    log.seconds(20, "dies", "goes-on")
    for _ in range(LONG - 1):
        log.seconds(1, "goes-on")
        assert log.silent == (["dies"] if log.now_s - 1_000_020 >= LEAST_S else [])
    log.seconds(1, "dies", "goes-on")
    assert log.silent == []


def test_after_an_hour_it_is_as_if_somebody_had_looked_all_the_time() -> None:
    log = Log()
    log.seconds(600, "died-soon", "goes-on")
    log.seconds(2_400, "died-late", "goes-on")
    log.seconds(int(GIVEN_UP_S), "goes-on")
    assert log.silent == ["died-late"], "the other counts as gone since long"
    log.seconds(LONG, "goes-on")
    assert log.silent == []


def test_after_an_hour_in_which_nothing_ran_nobody_is_silent() -> None:
    log = Log()
    log.seconds(20, "a")
    log.now_s += 3_600
    log.seconds(LONG)
    assert log.silent == []


def test_an_end_that_is_too_old_to_be_read_is_not_needed() -> None:
    """A fan-out that was away for long reads what a trainer published before it ended."""
    log = Log()
    log.seconds(20, "ended")
    log.say(ENDED, TRAINER + "ended")
    log.now_s += RECALLED_S
    log.behind_s = RECALLED_S + 20
    log.seconds(20, "ended")
    log.behind_s = 0.0
    log.seconds(LONG)
    assert log.silent == []


@pytest.mark.parametrize("behind_s", [-300.0, 300.0])
def test_clocks_that_differ_by_minutes_change_nothing(behind_s: float) -> None:
    log = Log(behind_s)
    log.seconds(20, "dies", "goes-on")
    log.seconds(LONG, "goes-on")
    assert log.silent == ["dies"]


def test_many_signals_and_bytes_that_are_none_hide_nobody() -> None:
    log = Log()
    log.seconds(20, "dies", "goes-on")
    log.write(*[b"not a signal"] * COUNTS[0])
    log.say(PUBLISHED, TRAINER + "dies", model="other")
    log.seconds(LONG, "goes-on")
    assert log.silent == ["dies"]


def test_retention_and_an_empty_log() -> None:
    log = Log()
    assert log.recalled().end == 0
    log.seconds(20, "dies", "goes-on")
    log.broker.trim(PARTITION, 10)
    log.seconds(LONG, "goes-on")
    assert log.silent == ["dies"]
    end = log.bounds([PARTITION])[PARTITION].end
    log.broker.trim(PARTITION, end)
    assert (log.silent, log.recalled().end) == ([], end)
    with pytest.raises(TopicMissing):
        recall(log, Codec(), "other")


def test_signals_are_followed_from_where_they_were_read_back_to() -> None:
    following = Following(["ctr", "dlrm"])
    assert following.missing({"ctr"}) == ["ctr"]
    assert not following.is_next("ctr", 3)
    following.begin("ctr", 5)
    assert following.missing({"ctr", "dlrm"}) == ["dlrm"]
    assert [following.is_next("ctr", offset) for offset in (4, 5, 5, 6)] == [False, True, False, True]


def test_what_leaves_signals_out_is_read_back_anew() -> None:
    following = Following(["ctr"])
    following.begin("ctr", 5)
    assert not following.is_next("ctr", 6)
    assert "ctr" not in following
    assert following.missing({"ctr"}) == ["ctr"]


def test_a_model_that_another_monitor_is_given_is_forgotten() -> None:
    following = Following(["ctr", "dlrm"])
    following.begin("ctr", 5)
    following.begin("dlrm", 7)
    assert following.keep({"ctr"}) == ["dlrm"]
    assert ("ctr" in following, "dlrm" in following) == (True, False)
    assert following.keep({"ctr"}) == []
