"""One seed: a world goes through its schedule, is healed, comes to rest, and every law is checked."""

import random
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

from ekko.schemas import topics
from ekko.streams.fanout.seeding import SEED_SEQ
from ekko.streams.log import Partition
from ekko.streams.memory.broker import TRANSACTION_TIMEOUT_S
from tests.simulation.checks.acknowledged import check_acknowledged
from tests.simulation.checks.automatic import Automatic
from tests.simulation.checks.healthy import check_healthy_is_complete
from tests.simulation.checks.pinned import check_pinned
from tests.simulation.checks.reinstated import check_reinstated
from tests.simulation.checks.rejections import check_founded_rejections, check_rejections
from tests.simulation.checks.replicas import (
    check_as_of,
    check_complete_is_honest,
    check_equal_vectors_equal_bits,
    check_kept,
    check_regions_equal,
    check_rows,
)
from tests.simulation.checks.retracted import check_retracted
from tests.simulation.checks.seqs import check_barriers_forwarded, check_seqs_contiguous
from tests.simulation.checks.settled import check_all_settled, check_settled_is_honest
from tests.simulation.durable import Disk
from tests.simulation.environment import CENTRAL, FOUNDED, Environment
from tests.simulation.faults import TRANSACTION
from tests.simulation.founding import Founder, SeededReplica
from tests.simulation.input import Input
from tests.simulation.lanes import RegionLog, read_region
from tests.simulation.machines import FanoutMachine, Machine, ManagerMachine
from tests.simulation.monitor import Monitor
from tests.simulation.operator import Operator
from tests.simulation.replica import Replica
from tests.simulation.retention import Retention
from tests.simulation.scenario import Scenario, scenario_of
from tests.simulation.trainer import Trainer
from tests.simulation.truth import Truth

_QUIET_ROUNDS = 6
_MOST_ROUNDS = 2_000


class Event(NamedTuple):
    """Something that may happen in a tick."""

    chance: float
    happen: Callable[[], None]


class World:
    """All processes of a scenario and what happens to them."""

    def __init__(self, scenario: Scenario, trace: Callable[[str], None]) -> None:
        self.scenario = scenario
        self.environment = Environment(scenario, trace)
        self.environment.declare(scenario.tables)
        self.input = Input(self.environment)
        self.fanouts = [
            FanoutMachine(region, number, self.environment)
            for region in scenario.regions
            for number in range(scenario.fanouts)
        ]
        self.managers = [ManagerMachine(number, self.environment) for number in range(2)]
        self.monitor = Monitor(self.environment, self.managers)
        self.replicas = [
            Replica(region, number, shards, self.environment)
            for region in scenario.regions
            for number, shards in enumerate(scenario.replica_shards[region])
        ]
        self.trainers = [
            Trainer(number, self.input.keys, self.environment, exactly_once=exactly_once)
            for number, exactly_once in enumerate(scenario.trainers)
        ]
        self.commander = Operator(self.environment)
        self.machines: list[Machine] = [*self.fanouts, *self.managers, *self.replicas, *self.trainers, self.commander]
        self.retention = Retention(self.environment, self.replicas, self.trainers)
        self.founder = Founder(
            self.environment, self.replicas[0], self.retention, seeded=self._restore_seeded, opened=self._open_founded
        )
        if scenario.founds:
            self.machines.append(self.founder)
        self._rng = self.environment.rng
        self._leaders_rng = random.Random(f"leaders {scenario.seed}")
        self._events = self._possible_events()

    def _restore_seeded(self, seed: Disk) -> None:
        """The founded region gets its replicas."""
        everything = tuple(range(self.scenario.shards))
        seeded = [SeededReplica(number, deepcopy(seed), everything, self.environment) for number in range(2)]
        self.replicas += seeded
        self.machines += seeded

    def _open_founded(self) -> None:
        """And its fan-outs, which need a seed."""
        fanouts = [FanoutMachine(FOUNDED, number, self.environment) for number in range(self.scenario.fanouts)]
        self.fanouts += fanouts
        self.machines += fanouts

    def live(self) -> None:
        """Go through the schedule."""
        for _ in range(self.scenario.ticks):
            self.environment.clock.now_s += self._rng.choice((0.001, 0.01, 0.05, 0.3))
            for event in self._events:
                if self._rng.random() < event.chance:
                    event.happen()
            if self._leaders_rng.random() < 0.1 * self.scenario.trouble:
                self._doom_a_leader()
            self.monitor.let_an_hour_end()
            for machine in self._rng.sample(self.machines, k=self._rng.randint(1, len(self.machines))):
                machine.step()
            if self._rng.random() < 0.2:
                check_equal_vectors_equal_bits(self._up_replicas())
            if self._rng.random() < 0.02:
                self._check_in_flight()

    def _up_replicas(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.up]

    def _check_in_flight(self) -> None:
        truth = Truth(self.environment.brokers[CENTRAL], self.scenario.model)
        for replica in self._up_replicas():
            check_complete_is_honest(truth.knowing(replica.state.voids), replica)
        check_healthy_is_complete(self.environment.brokers[CENTRAL], self.scenario, self.replicas)

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more: everything that was begun must end."""
        environment = self.environment
        environment.weather.clear()
        environment.log("healed")
        environment.clock.now_s += TRANSACTION_TIMEOUT_S  # whatever hangs ends
        if not self.founder.begun:
            self.machines = [machine for machine in self.machines if machine is not self.founder]
        for machine in self.machines:
            machine.rest_easy()
        for trainer in self.trainers:
            trainer.training = False
        for trainer in self.trainers:
            trainer.step()  # what is still queued goes
        if self.scenario.condemnations and self.scenario.insists:
            self.monitor.insist()
        for _ in range(3):  # the last two decide about blocks that name catalogue offsets nobody knows
            self.input.barrier()
        quiet = 0
        for _ in range(_MOST_ROUNDS):
            # Budgets are in debt for a second at most, so nothing that waits waits longer than a few quiet rounds.
            environment.clock.now_s += 0.5 if quiet else 0.2
            done = [machine.step() for machine in self.machines if not isinstance(machine, ManagerMachine)]
            quiet = 0 if any(done) else quiet + 1
            if quiet > _QUIET_ROUNDS:
                return
        raise AssertionError(f"no rest after {_MOST_ROUNDS} rounds")

    def check(self) -> None:
        """Every law, at rest."""
        scenario = self.scenario
        for fanout in self.fanouts:
            self.environment.watch(fanout.name, fanout.failures)
        truth = Truth(self.environment.brokers[CENTRAL], scenario.model)
        logs = [self._region_log(region) for region in scenario.regions]
        for log in logs:
            check_seqs_contiguous(log)
            check_barriers_forwarded(log, truth.epoch)
            check_settled_is_honest(truth, log)
            check_all_settled(truth, log)
        check_rejections(truth, logs)
        if self.founder.begun:
            assert self.founder.founded
            founded = self._region_log(FOUNDED)
            check_seqs_contiguous(founded, first=SEED_SEQ + 1)
            check_barriers_forwarded(founded, truth.epoch, seeded=True)
            check_founded_rejections(founded, logs[0], self.founder.begins)
        for trainer in self.trainers:
            check_acknowledged(truth, trainer)
        check_retracted(truth, self.commander.retracted)
        check_reinstated(truth, self.commander.reinstated)
        central = self.environment.brokers[CENTRAL]
        automatic = Automatic(truth, central, scenario.automatic, self.input.rolled_back)
        automatic.check_limit()
        automatic.check_served(self.monitor.since_us)
        for replica in self.replicas:
            assert replica.state.complete == truth.epoch, f"{replica.name} is complete at {replica.state.complete} only"
            check_rows(truth, replica)
            check_kept(truth, replica)
            check_as_of(truth, replica)
            check_pinned(truth, replica)
        check_equal_vectors_equal_bits(self.replicas)
        check_regions_equal(self.replicas)

    def end(self) -> None:
        """Whatever Python still runs of the processes reaches nobody."""
        for machine in self.machines:
            machine.end()

    def _region_log(self, region: str) -> RegionLog:
        return read_region(self.environment.brokers[region], self.scenario.model, region, self.scenario.shards)

    # ---- what may happen ---------------------------------------------------------------------------------------------

    def _possible_events(self) -> list[Event]:
        scenario, trouble = self.scenario, self.scenario.trouble
        return [
            Event(0.1, self.input.publish),
            Event(scenario.bad_input, self.input.rubbish),
            Event(scenario.retractions, self.input.retract),
            Event(scenario.rollbacks, self.input.roll_back),
            Event(scenario.withdrawals, self.input.withdraw),
            Event(scenario.denials, self.input.deny_or_allow),
            Event(scenario.condemnations, self.monitor.speak),
            Event(0.02 if scenario.rewinds else 0.0, self._take_snapshot),
            Event(scenario.rewinds, self._rewind),
            Event(0.01 if scenario.late_table else 0.0, self._add_table),
            Event(scenario.retention, self._let_retention_pass),
            Event(0.03 * trouble, self._kill),
            Event(0.06 * trouble, self._doom),
            Event(0.02 * trouble, self._make_zombie),
            Event(0.05 * trouble, self._change_weather),
            Event(0.02 * trouble, self._take_broker_away),
            Event(0.03 * trouble, self._stall_a_partition),
        ]

    def _add_table(self) -> None:
        if self.scenario.late_table is not None:
            self.environment.declare((*self.scenario.tables, self.scenario.late_table))

    def _let_retention_pass(self) -> None:
        self.retention.pass_by(self._rng.randrange(self.scenario.shards))

    def _take_snapshot(self) -> None:
        self._rng.choice(self.replicas).take_snapshot()

    def _rewind(self) -> None:
        self._rng.choice(self.replicas).rewind()

    def _kill(self) -> None:
        machine = self._rng.choice(self.machines)
        if machine.up:
            machine.kill()

    def _doom(self) -> None:
        """A kill in the middle of something, soon."""
        self._rng.choice(self.machines).doom.countdown = self._rng.randint(0, 12)

    def _doom_a_leader(self) -> None:
        """A kill of whoever writes barriers, between any two steps of its next transaction."""
        leaders = [manager for manager in self.managers if manager.leads]
        if leaders:
            self._leaders_rng.choice(leaders).doom.awaited = self._leaders_rng.choice(TRANSACTION)

    def _make_zombie(self) -> None:
        self._rng.choice(self.fanouts).replace()

    def _change_weather(self) -> None:
        weather = self.environment.weather
        weather.uncertain = self._rng.choice((0.0, 0.05, 0.3))
        weather.refused = self._rng.choice((0.0, 0.05, 0.3))
        weather.late_markers = self._rng.choice((0.0, 0.5))
        weather.lag = self._rng.choice((0.0, 0.2, 0.6))

    def _take_broker_away(self) -> None:
        cluster = self._rng.choice(sorted(self.environment.brokers))
        self.environment.log(f"broker {cluster} away")
        self.environment.weather.away_until_s[cluster] = self.environment.clock.now_s + self._rng.uniform(0.05, 1.5)

    def _stall_a_partition(self) -> None:
        scenario, now_s = self.scenario, self.environment.clock.now_s
        shard = self._rng.randrange(scenario.shards)
        names = [topics.deltas(scenario.model)] + [
            topics.lane(scenario.model, region, lane) for region in scenario.regions for lane in ("express", "bulk")
        ]
        stalled = Partition(self._rng.choice(names), shard)
        self.environment.weather.stalled_until_s[stalled] = now_s + self._rng.uniform(0.05, 2.0)


def simulate(seed: int, trace: Callable[[str], None] = lambda _: None) -> None:
    """Run one seed; raises AssertionError naming the law that was broken."""
    scenario = scenario_of(seed)
    trace(repr(scenario))
    live_through(World(scenario, trace))


def live_through(world: World) -> None:
    """Let a world live, come to rest, and be judged; raises AssertionError naming the law that was broken."""
    with world.environment.clock.installed():
        try:
            world.live()
            world.come_to_rest()
            world.check()
        finally:
            world.end()
