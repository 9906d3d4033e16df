"""Worlds in which rows expire: an operator expires, retracts and reinstates, is killed in the middle, and goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import CommitUncertain, Fenced, NotReady, RolledBack, StateUnavailable, TransactionAborted
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.quantize import Int32s
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.barriers import beginning, withdrawing
from ekko.streams.manager.history import read_control, read_states
from ekko.streams.memory.broker import TRANSACTION_TIMEOUT_S
from ekko.streams.operations.expiry import ExpiryName, RowsExpiry
from ekko.streams.operations.operation import Collector, Operation, Operator
from ekko.streams.operations.reinstate import Reinstatement, reinstatement_name
from ekko.streams.operations.retract import Retraction
from ekko.streams.operations.rows_writer import Target
from tests.simulation.checks.expired import check_expired, check_only_idle_rows_expire
from tests.simulation.checks.reinstated import Reinstated, check_reinstated
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.machines import Machine
from tests.simulation.replica import Replica
from tests.simulation.scenario import Scenario, scenario_of
from tests.simulation.truth import Truth
from tests.simulation.world import Event, World, live_through

_NOT_NOW = (CommitUncertain, Fenced, NotReady, RolledBack, StateUnavailable, TimeoutError, TransactionAborted)
_ROWS_A_CHUNK = 3
_MOST_BARRIERS = 60

Wish = tuple[Purpose, str, EpochRange]
"""A retraction of a trainer, or a reinstatement, that the operator means to have done."""


class ExpiryOperator(Machine):
    """Runs one command after the other; retractions and reinstatements are given again until they end well.

    Attributes:
        wishes: those not yet done: what the operator, who is no process, remembers.
        reinstated: reinstatements that have ended well.
    """

    def __init__(self, replicas: list[Replica], environment: Environment) -> None:
        super().__init__("expiry operator", environment)
        self._replicas = replicas
        self._expiry: RowsExpiry | None = None
        self._resting = False
        self.wishes: list[Wish] = []
        self.reinstated: list[Reinstated] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.wishes and self._expiry is None

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        cluster = self.environment.connect(CENTRAL, self.doom)
        catalogue = SharedCatalogue(cluster)
        catalogue.refresh()
        self._target = Target(cluster, catalogue, catalogue.model(self.environment.scenario.model))

    def rest_easy(self) -> None:
        """See `Machine.rest_easy`; what was begun is brought to its end, and nothing new is begun."""
        super().rest_easy()
        self._resting = True

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        del now_s
        rng = self.environment.rng
        if self._resting and self.done:
            return False
        try:
            if self._expiry is not None:
                return self._go_on(self._expiry)
            if self.wishes and (self._resting or rng.random() < 0.5):
                self._fulfil(self.wishes[0])
            elif rng.random() < 0.3:
                rng.choice((self._expire, self._expire, self._retract, self._reinstate))()
            else:
                return False
        except _NOT_NOW as error:
            self.environment.log(f"{self.name}: {type(error).__name__}: {error}")
            self._end_expiry()
        return True

    def crash(self) -> None:
        """See `Machine.crash`."""
        self._expiry = None

    def _barrier(self) -> Barrier:
        cluster, catalogue, model = self._target
        catalogue.refresh()
        return read_control(cluster, catalogue, model) or beginning(model.incarnation or 0)

    def _expire(self) -> None:
        rng, last = self.environment.rng, self._barrier().epoch
        table = rng.choice(self._target.catalogue.model(self._target.model.name).tables)
        self._expiry = RowsExpiry(self._target, table, rng.randint(0, last), int(self.environment.clock() * 1e6))
        self.environment.log(f"{self._expiry.name} begins")

    def _go_on(self, expiry: RowsExpiry) -> bool:
        """Read and publish, once the stores are complete at the state."""
        found = list(self._idle_rows(expiry.name))
        if len(found) < self._target.model.shards:
            return False
        count = 0
        for keys, rows in found:
            for start in range(0, len(keys), _ROWS_A_CHUNK):
                part = slice(start, start + _ROWS_A_CHUNK)
                count += expiry.publish(start + 1, keys[part], -rows[part])
        expiry.check_generation()
        self.environment.log(f"{expiry.name}: {count} rows")
        self._end_expiry()
        return True

    def _idle_rows(self, name: ExpiryName) -> Iterator[tuple[UInt64s, Int32s]]:
        """By shard, from some replica that can tell."""
        shards = self._target.model.shards
        for shard in range(shards):
            for replica in self._replicas:
                if replica.up and shard in replica.shards and replica.state.complete >= name.state:
                    known = name.table in replica.tables  # it learns of a table with its first rows
                    runs = replica.store.items(name.table, name.state, idle_since=name.idle_since) if known else ()
                    runs = list(runs)
                    keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in runs)])
                    mine = shard_of(keys, shards) == shard
                    dim = self._target.catalogue.model(self._target.model.name).table(name.table).dim
                    rows = np.concatenate([np.empty((0, dim), np.int32), *(rows for _, rows in runs)])
                    yield keys[mine], rows[mine]
                    break

    def _end_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.close()
            self._expiry = None

    def _retract(self) -> None:
        rng, last = self.environment.rng, self._barrier().epoch - 1
        if last >= 0:
            trainer = rng.choice(("raw", "trainer-0"))
            self.wishes.append((Purpose.RETRACT, trainer, EpochRange(rng.randint(0, last), last)))

    def _reinstate(self) -> None:
        voids = self._barrier().voids
        if voids:
            self.wishes.append((Purpose.REINSTATE, "", self.environment.rng.choice(voids)))

    def _fulfil(self, wish: Wish) -> None:
        purpose, trainer, epochs = wish
        cluster, catalogue, model = self._target
        retracts = purpose is Purpose.RETRACT
        identity = f"retract/{trainer}/{epochs.first}-{epochs.last}" if retracts else reinstatement_name(epochs)

        def collector() -> Collector:
            return Retraction(trainer, epochs) if retracts else Reinstatement(epochs)

        entry = AuditEntry(model.name, purpose, "operator", "", int(self.environment.clock() * 1e6))
        start = read_states(cluster, catalogue, model).get(epochs.first)
        outcome = Operator(cluster, catalogue, model).run(Operation(purpose, identity, start, collector, entry))
        self.environment.log(f"{identity}: {outcome.rows} rows")
        self.wishes.remove(wish)
        if not retracts:
            self.reinstated.append(Reinstated(epochs, self.environment.source_ends()))


class ExpiringWorld(World):
    """A world with an expiry operator, in which old states are given up early, and retention never passes by."""

    def __init__(self, scenario: Scenario, trace: Callable[[str], None]) -> None:
        super().__init__(scenario, trace)
        self.operator = ExpiryOperator(self.replicas, self.environment)
        self.machines.append(self.operator)
        self._everything = self.input.keys
        self._events += [Event(0.08, self._give_up_states), Event(0.1, self._turn_to_other_keys)]

    def come_to_rest(self) -> None:
        """See `World.come_to_rest`; what the operator has begun is ended first."""
        self.environment.weather.clear()
        self.environment.clock.now_s += TRANSACTION_TIMEOUT_S
        for machine in self.machines:
            machine.rest_easy()
        for trainer in self.trainers:
            trainer.training = False
        for _ in range(_MOST_BARRIERS):
            self.environment.clock.now_s += 0.5
            self.input.barrier()
            for machine in self.machines * 3:
                machine.step()
            if self.operator.done:
                break
        assert self.operator.done, f"the operator does not come to an end: {self.operator.wishes}"
        super().come_to_rest()

    def check(self) -> None:
        """See `World.check`."""
        super().check()
        truth = Truth(self.environment.brokers[CENTRAL], self.scenario.model)
        check_expired(truth)
        check_reinstated(truth, self.operator.reinstated)
        check_only_idle_rows_expire(truth)

    def _turn_to_other_keys(self) -> None:
        """Trainers learn of few keys for a while, so that the others rest."""
        some = self._rng.sample(self._everything.tolist(), min(3, len(self._everything)))
        self.input.keys = np.array(some, np.uint64)
        for trainer in self.trainers:
            trainer.keys = self.input.keys

    def _give_up_states(self) -> None:
        last = self.input._last()
        if last.epoch > 1:
            self.input._amend(withdrawing(set(range(last.epoch - 1)) - {last.pinned}), "withdrawal")

    def _let_retention_pass(self) -> None:
        """A retraction reads the source log as far back as it likes."""


def expiring_scenario(seed: int) -> Scenario:
    """The world of a seed, with more ticks and keys that rest at times; only the expiry operator retracts."""
    scenario = scenario_of(seed)
    return replace(
        scenario,
        retractions=0.0,
        withdrawals=0.0,
        commands=0.0,
        condemnations=0.0,
        rollbacks=max(0.01, scenario.rollbacks),
        ticks=2 * scenario.ticks,
        keys=max(12, scenario.keys),
    )


def simulate_expiring(seed: int, trace: Callable[[str], None] = lambda _: None) -> ExpiringWorld:
    """Run one seed; raises AssertionError naming the law that was broken."""
    scenario = expiring_scenario(seed)
    trace(repr(scenario))
    world = ExpiringWorld(scenario, trace)
    live_through(world)
    return world
