"""Seeded faults between one simulated process and its brokers."""

import random
from dataclasses import dataclass, field

from ekko.streams.log import Partition
from ekko.streams.memory.broker import PartitionLog
from ekko.streams.memory.faults import Fate, Faults
from tests.simulation.clock import Clock

TRANSACTION = ("begin", "in transaction", "commit sent", "committed")
"""The moments of a transaction between which a writer may die."""


class Killed(BaseException):
    """A kill -9 in the middle of something. No handler of the product can catch it: it is no Exception."""


@dataclass(slots=True)
class Doom:
    """How one life of a process ends.

    Attributes:
        countdown: it is killed at the so-manieth moment from now at which it touches the outside; None: not at all.
        awaited: it is killed as soon as this moment comes; None: not so.
        dead: it was killed; whatever Python still runs of it reaches nobody.
    """

    countdown: int | None = None
    awaited: str | None = None
    dead: bool = False

    def pass_moment(self, moment: str) -> None:
        """One such moment; the dead are not killed again."""
        if self.dead:
            return
        if moment == self.awaited:
            self.awaited = None
            raise Killed(moment)
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.countdown = None
                raise Killed(moment)


@dataclass(slots=True)
class Weather:
    """What all processes of a world suffer from alike; the schedule changes it.

    Attributes:
        uncertain, refused: share of transactions (and plain deliveries) whose fate is unknown, and that are aborted.
        late_markers: share of commits that become visible only some time after their answer.
        lag: share of reads that see only a part of what is there.
        away_until_s: by cluster name, until when its broker answers nobody.
        stalled_until_s: by partition, until when no reader gets anything from it unless it waits for it.
    """

    uncertain: float = 0.0
    refused: float = 0.0
    late_markers: float = 0.0
    lag: float = 0.0
    away_until_s: dict[str, float] = field(default_factory=dict)
    stalled_until_s: dict[Partition, float] = field(default_factory=dict)

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self.uncertain = self.refused = self.late_markers = self.lag = 0.0
        self.away_until_s.clear()
        self.stalled_until_s.clear()


class SeededFaults(Faults):
    """Faults of one life of a process towards one cluster."""

    def __init__(self, cluster: str, weather: Weather, clock: Clock, rng: random.Random, doom: Doom) -> None:
        self._cluster, self._weather, self._clock, self._rng, self._doom = cluster, weather, clock, rng, doom

    def reachable(self) -> bool:
        """See `Faults.reachable`."""
        return not self._doom.dead and self._clock.now_s >= self._weather.away_until_s.get(self._cluster, 0.0)

    def interrupt(self, moment: str) -> None:
        """See `Faults.interrupt`."""
        self._doom.pass_moment(moment)

    def waited(self, seconds: float) -> None:
        """See `Faults.waited`."""
        self._clock.wait(seconds)

    def transaction(self) -> Fate:
        """See `Faults.transaction`."""
        if self._rng.random() < self._weather.refused:
            return Fate.REFUSED
        if self._rng.random() < self._weather.uncertain:
            return self._rng.choice((Fate.REPLY_LOST, Fate.HANGING))
        return Fate.DONE

    def marker_delay_s(self) -> float:
        """See `Faults.marker_delay_s`."""
        return self._rng.random() * 0.2 if self._rng.random() < self._weather.late_markers else 0.0

    def delivery(self) -> Fate:
        """See `Faults.delivery`."""
        if self._rng.random() < self._weather.uncertain / 4:
            return self._rng.choice((Fate.REPLY_LOST, Fate.REFUSED))
        return Fate.DONE

    def held_back(self) -> bool:
        """See `Faults.held_back`."""
        return self._rng.random() < self._weather.lag

    def visible_end(self, log: PartitionLog, position: int, waited_s: float) -> int:
        """See `Faults.visible_end`."""
        if self._weather.stalled_until_s.get(log.partition, 0.0) > self._clock.now_s + waited_s:
            return position
        if self._rng.random() < self._weather.lag:
            return self._rng.randint(position, max(position, log.stable))
        return log.stable
