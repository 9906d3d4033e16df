"""The monitor's word: it finds the model corrupt at any moment, also when the hour of a rollback ends, and again."""

import random
from collections.abc import Sequence

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Verdict
from ekko.streams.health.proposals import to_signal
from ekko.streams.health.verdict import Judgement
from ekko.streams.log import Output, Partition
from tests.simulation.checks.automatic import HOUR_US, by_manager, read_trail
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.machines import ManagerMachine

_MOST_ROUNDS = 60


class Monitor:
    """Writes to the signals on a connection on which nothing goes wrong.

    Attributes:
        since_us: when each episode of a corrupt model began that it told of.
    """

    def __init__(self, environment: Environment, managers: Sequence[ManagerMachine]) -> None:
        self.since_us: list[int] = []
        self._environment, self._scenario = environment, environment.scenario
        self._managers = managers
        self._writer = environment.healthy().writer()
        self._rng = random.Random(f"monitor {self._scenario.seed}")

    def speak(self) -> None:
        """The monitor finds the model corrupt, or well: what is done about it is the managers' business."""
        self._say(self._rng.choice((Verdict.CORRUPT, Verdict.CORRUPT, Verdict.HEALTHY)))

    def _say(self, verdict: Verdict) -> None:
        name, since_s = self._scenario.model, self._environment.clock() - 0.1
        signal = to_signal(name, Judgement(verdict, since_s, "planted"))
        self.since_us += [signal.event_us] if verdict is Verdict.CORRUPT else []
        self._environment.log(f"the monitor says {verdict}")
        self._writer.send(Output(Partition(topics.signals(name), 0), encode(signal)))
        self._writer.flush(1.0)

    def let_an_hour_end(self) -> None:
        """With the scenario's chance: the oldest automatic rollback that counts is an hour ago, exactly or nearly."""
        if self._rng.random() >= self._scenario.hours:
            return
        trail = read_trail(self._environment.brokers[CENTRAL], self._scenario.model)
        done = [entry.at_us for entry in trail if by_manager(entry, "rollback")][-self._scenario.automatic :]
        end_us = done[0] + HOUR_US + self._rng.choice((-1_000, 0, 0, 50_000)) if done else 0
        if len(done) == self._scenario.automatic and end_us > self._environment.clock() * 1e6:
            self._environment.clock.leap(end_us)
            self._environment.log("an hour ends")
            self._condemn()

    def insist(self) -> None:
        """It says corrupt, whatever the managers do, until they have nothing left to do but to call a person."""
        for _ in range(_MOST_ROUNDS):
            self._environment.clock.now_s += 0.3
            self.let_an_hour_end()
            self._condemn()
            if any(manager.calls_a_person for manager in self._managers):
                return
        raise AssertionError(f"the model was found corrupt {_MOST_ROUNDS} times in a row, and no person was called")

    def _condemn(self) -> None:
        """Who leads hears of it at once."""
        self._say(Verdict.CORRUPT)
        for manager in sorted(self._managers, key=lambda manager: not manager.leads):
            manager.step()
