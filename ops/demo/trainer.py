"""The online trainer, a process of its own: scores each interaction with rows from every region, learns, publishes."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.learner import Learner, Step
from ekko.ops.demo.plan import FACTORS, STREAM_FILE, TABLE, TRAINER, DemoPlan
from ekko.ops.demo.poison import Phase, flip_labels, phase_of
from ekko.ops.demo.replay import Replay
from ekko.ops.demo.status import TRAINER_FILE, RegionQuality, TrainerStatus, read_status, write_status
from ekko.ops.demo.validation import Lookup, RegionValidation
from ekko.ops.process import stop_on_signals
from ekko.schemas.errors import EkkoError, NotReady, RolledBack
from ekko.storage.client import StoreClient
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher

STATUS_EVERY_S = 0.5
SAVE_EVERY_S = 5.0
PULL_TIMEOUT_S = 60.0
PUBLISH_TIMEOUT_S = 60.0
FLUSH_TIMEOUT_S = 60.0
LOOKUP_TIMEOUT_S = 0.5
OPTIMIZER_FILE = "optimizer.npz"
DIM = 1 + FACTORS

_log = logging.getLogger("ekko.demo.trainer")


class Trainer:
    """One replay of the stream; `run` ends at the plan's end, at the stream's end, or when ``stop`` is set."""

    def __init__(self, plan: DemoPlan, interactions: Interactions, clients: dict[str, StoreClient]) -> None:
        vocabulary = interactions.vocabulary()
        self._plan = plan
        self._interactions = interactions
        self._validations = {
            region: RegionValidation(DIM, vocabulary, _lookup_of(client), plan.refresh_s)
            for region, client in clients.items()
        }
        self._generation = 0
        self._learner = Learner(DIM, lambda keys: pull(clients, keys, self._generation))
        self._until = 0.0
        self._poisoned_at: float | None = None
        self._optimizer_file = plan.folder / OPTIMIZER_FILE

    def run(self, publisher: Publisher, stop: threading.Event) -> None:
        """Replay, from where an earlier trainer of this run left off."""
        position = int.from_bytes(publisher.last_position() or b"", "big")
        if position:
            self._learner.optimizer.load(self._optimizer_file)
        replay = Replay(self._interactions, self._plan.rate, self._plan.batch, position, position)
        earlier = read_status(self._plan.folder / TRAINER_FILE, TrainerStatus)
        self._until, self._poisoned_at = earlier.until or time.time() + self._plan.seconds, earlier.poisoned_at
        self._generation = publisher.generation
        started, training_s = time.monotonic(), self._until - time.time()
        status_due = save_due = 0.0
        while not (stop.is_set() or replay.finished):
            elapsed = time.monotonic() - started
            stop.wait(min(replay.wait_s(elapsed), max(0.0, training_s - elapsed)))
            elapsed = time.monotonic() - started
            if elapsed >= training_s:
                break
            self._train(replay, elapsed, publisher)
            if elapsed >= status_due:
                status_due = elapsed + STATUS_EVERY_S
                self._tell(replay, elapsed, publisher, finished=False)
            if elapsed >= save_due:
                save_due = elapsed + SAVE_EVERY_S
                self._learner.optimizer.save(self._optimizer_file)
        publisher.flush(FLUSH_TIMEOUT_S)
        self._tell(replay, time.monotonic() - started, publisher, finished=True)

    def rolled_back(self, generation: int) -> None:
        """The publisher's callback: rows learnt since are gone, fresh ones are pulled when next needed."""
        _log.warning("the model was rolled back (generation %d): rows are pulled again", generation)
        self._generation = generation
        self._learner.forget()

    def _train(self, replay: Replay, elapsed_s: float, publisher: Publisher) -> None:
        batch = replay.take(elapsed_s)
        since_start_s = time.time() - (self._until - self._plan.seconds)
        phase = phase_of(self._plan.poison_at_s, since_start_s, self._generation)
        for validation in self._validations.values():
            validation.score(batch, elapsed_s, phase)
        step = self._learner.learn(flip_labels(batch) if phase is Phase.POISONED else batch)
        if phase is Phase.POISONED and self._poisoned_at is None:
            self._poisoned_at = time.time()
        try:
            publish(publisher, step, replay.position)
        except RolledBack:
            _log.warning("the deltas of %d interactions were dropped: the model was rolled back", len(batch.labels))

    def _tell(self, replay: Replay, elapsed_s: float, publisher: Publisher, *, finished: bool) -> None:
        acknowledged = publisher.acknowledged
        status = TrainerStatus(
            until=self._until,
            position=replay.position,
            behind_s=max(0.0, elapsed_s - (replay.position - replay.origin) / self._plan.rate),
            acknowledged_rows=acknowledged.rows,
            acknowledged_blocks=acknowledged.blocks,
            acknowledged_total=acknowledged.total % 2**64,
            finished=finished,
            poisoned_at=self._poisoned_at,
            regions={region: RegionQuality.of(found) for region, found in self._validations.items()},
        )
        write_status(self._plan.folder / TRAINER_FILE, status)


def _lookup_of(client: StoreClient) -> Lookup:
    return lambda keys: client.lookup(TABLE, keys).values


def pull(
    clients: dict[str, StoreClient],
    keys: NDArray[np.uint64],
    generation: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows and found mask of keys from the first region that answers; waits while none does.

    A region that has not undone ``generation`` rollbacks does not answer: its rows are corrupt.

    Raises:
        NotReady: no region has answered for a minute.
    """
    deadline = time.monotonic() + PULL_TIMEOUT_S
    while True:
        for client in clients.values():
            try:
                rows = client.pull(TABLE, keys, generation=generation)
            except EkkoError as error:
                _log.warning("rows cannot be pulled from %s: %s", client.region, error)
            else:
                return rows.values, rows.found
        if time.monotonic() > deadline:
            raise NotReady(f"no region has served rows for {PULL_TIMEOUT_S:.0f} s", hint="do the stores run?")
        sleep(0.1)


def publish(publisher: Publisher, step: Step, position: int) -> None:
    """Publish a step; the input position rides along, so that a restarted trainer goes on after it."""
    encoded = position.to_bytes(8, "big")
    publisher.publish(
        TABLE, step.keys, step.deltas, created=step.created, position=encoded, timeout_s=PUBLISH_TIMEOUT_S
    )


def main(folder: Path) -> None:
    """Train as the plan in ``folder`` says, until SIGTERM at the latest."""
    stop = stop_on_signals()
    plan = DemoPlan.read(folder)
    interactions = Interactions.load(plan.folder / STREAM_FILE)
    clients = {
        region: StoreClient(region, plan.model, stores=[address], timeout_s=LOOKUP_TIMEOUT_S)
        for region, address in plan.stores.items()
    }
    trainer = Trainer(plan, interactions, clients)
    cluster = KafkaCluster(plan.bootstrap)
    with Publisher(plan.model, cluster=cluster, trainer=TRAINER, on_rollback=trainer.rolled_back) as publisher:
        trainer.run(publisher, stop)
