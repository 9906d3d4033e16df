"""What happens in the worlds of the first seeds, counted: `python -m tests.simulation.reach 25` prints it as JSON.

A program of its own, started with a fixed hash seed, so that the same happens in every run.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from ekko.storage.disk.pace import FlushPace
from ekko.storage.engine.table import Table
from ekko.streams.applier.instructions import Instructions
from ekko.streams.fanout.mirror import RegionMirror
from ekko.streams.fanout.recomputation import Recomputation
from ekko.streams.fanout.seeding import ShardSeeding
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.manager.automatic import AutomaticRollback
from ekko.streams.manager.tenure import Tenure
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.operations.operation import Operator
from ekko.streams.publisher.control import RollbackGate
from tests.simulation import faults, retention
from tests.simulation.durable import MemoryDurable
from tests.simulation.environment import Environment
from tests.simulation.faults import Killed
from tests.simulation.machines import Machine, ManagerMachine
from tests.simulation.replica import Replica
from tests.simulation.world import simulate

PLACES: tuple[tuple[Any, str], ...] = (
    (ShardFanout, "subtract_sent"),  # takeovers with something sent before
    (Recomputation, "_end_pass"),  # bulk that was forgotten for want of memory
    (ShardSeeding, "open"),  # a region founded from a snapshot
    (RegionMirror, "_connect"),  # regions with a cluster of their own
    (Table, "undo"),  # rollbacks
    (FlushPace, "given_up"),  # rollbacks that meet a flush which is being copied
    (Table, "unite"),  # withdrawn states
    (Table, "_journal_between"),  # late deltas of older epochs
    (MemoryDurable, "scan"),  # restarts from disk
    (RollbackGate, "_renew"),  # trainers that hear of a rollback
    (AutomaticRollback, "_roll_back"),  # rollbacks that nobody asked for
    (AutomaticRollback, "_serve_pinned"),  # and what comes once none is left
    (Instructions, "_follow_pin"),
    (Operator, "_write"),  # retractions and reinstatements by the commands' own code
    (Replica, "rewind"),
    (Tenure, "write_barrier"),
    (retention.Retention, "pass_by"),
    (MemoryBroker, "trim"),
    (faults, "Killed"),  # kills in the middle of something
)


TOLD = (
    *(
        "rollback: ",
        "operator: rollback by",
        "retraction of epoch",
        "operator: retract/trainer-0",
        "operator: reinstate/",
    ),
    "an hour ends",
    *("withdrawal: ", "operator: withdraw by", "rewound"),
)
"""What a world tells once it has really happened: a void, a retraction, a withdrawal, a snapshot that was put back."""

MOMENTS = frozenset({"poll", *faults.TRANSACTION})
"""Between these steps whoever writes the barriers is killed."""


class Chronicle:
    """What really happened in the worlds that were lived through."""

    def __init__(self) -> None:
        self.told = dict.fromkeys(TOLD, 0)
        self.leaders_killed: Counter[str] = Counter()

    def log(self, original: Callable[[Environment, str], None]) -> Callable[[Environment, str], None]:
        def listening(environment: Environment, text: str) -> None:
            for wanted in TOLD:
                self.told[wanted] += wanted in text
            original(environment, text)

        return listening

    def end(self, original: Callable[[Machine], None]) -> Callable[[Machine], None]:
        def watching(machine: Machine) -> None:
            moment = sys.exc_info()[1]
            if isinstance(moment, Killed) and isinstance(machine, ManagerMachine) and machine.leads:
                self.leaders_killed[str(moment)] += 1
            original(machine)

        return watching


def live_through(seeds: range) -> dict[str, int]:
    """How often each place was reached, each thing happened, and a leader was killed at each moment."""
    calls, chronicle = dict.fromkeys([name for _, name in PLACES], 0), Chronicle()
    with ExitStack() as stack:
        for owner, name in PLACES:
            stack.enter_context(patch.object(owner, name, _counting(getattr(owner, name), name, calls)))
        stack.enter_context(patch.object(Environment, "log", chronicle.log(Environment.log)))
        stack.enter_context(patch.object(Machine, "end", chronicle.end(Machine.end)))
        for seed in seeds:
            try:
                simulate(seed)
            except AssertionError as error:
                error.add_note(f"replay: python -m tests.simulation --seed {seed}")
                raise
    killed = {f"leader killed at: {moment}": chronicle.leaders_killed[moment] for moment in MOMENTS}
    return calls | chronicle.told | killed


def _counting(original: Any, name: str, calls: dict[str, int]) -> Any:
    if isinstance(original, type):

        class Counted(original):  # type: ignore[misc]
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                calls[name] += 1

        return Counted

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[name] += 1
        return original(*arguments, **named)

    return counted


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(live_through(range(int(sys.argv[1])))))
