"""A trainer: the product's publisher, fed with seeded floats, alone or with its input position in transactions."""

from contextlib import suppress

import numpy as np

from ekko.schemas.errors import EkkoError, PublishUncertain, QueueFull, RolledBack
from ekko.schemas.hashing import UInt64s
from ekko.streams.publisher import Publisher
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.machines import Machine


class Trainer(Machine):
    """Publishes batch 1, 2, 3 ... of its input; with `exactly_once` every batch is in the log once, whatever happens.

    Attributes:
        keys: uint64, those that it learns of.
        batches: table and keys of each batch as it was published last, for the checks: what it learns itself is lost
            with every life.
    """

    def __init__(self, number: int, keys: UInt64s, environment: Environment, *, exactly_once: bool) -> None:
        super().__init__(f"trainer {number}", environment)
        self.exactly_once = exactly_once
        self.identity = f"trainer-{number}"
        self.training = True
        self.keys = keys
        self._publisher: Publisher | None = None
        self.batches: dict[int, tuple[str, UInt64s]] = {}
        self._batch = 0
        self._rows_of_earlier_lives = 0

    @property
    def acknowledged(self) -> int:
        """Rows that were acknowledged over all its lives."""
        return self._rows_of_earlier_lives + (self._publisher.acknowledged.rows if self._publisher else 0)

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        self._publisher = Publisher(
            self.environment.scenario.model,
            cluster=self.environment.connect(CENTRAL, self.doom),
            trainer=self.identity,
            queue_bytes=4_000,
            on_rollback=lambda _: None,
            transactional_id=self.identity if self.exactly_once else None,
            timeout_s=2.0,
        )
        if self.exactly_once:
            position = self._publisher.last_position(timeout_s=2.0)
            self._batch = int(position or b"0")

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        del now_s
        assert self._publisher is not None
        try:
            if self.training and self.environment.rng.random() < 0.5:
                self._publish(self._publisher)
            if not self.exactly_once:
                self._publisher.flush(timeout_s=0.01)
        except (QueueFull, RolledBack) as error:
            self.environment.log(f"{self.name}: {type(error).__name__}")
        except PublishUncertain:
            if self.exactly_once:
                raise  # such a publisher is of no more use
        return self.training

    def _publish(self, publisher: Publisher) -> None:
        rng = np.random.default_rng(self.environment.rng.getrandbits(64))
        tables = publisher.model.tables
        table = tables[int(rng.integers(len(tables)))]
        keys = rng.choice(self.keys, size=int(rng.integers(1, len(self.keys) + 1)))
        deltas = rng.normal(0.0, 0.01, (len(keys), table.dim)).astype(np.float32)
        created = rng.random(len(keys)) < 0.1
        position = b"%d" % (self._batch + 1) if self.exactly_once else None
        self.batches[self._batch + 1] = table.name, np.unique(keys)
        publisher.publish(table.name, keys, deltas, created=created, position=position, timeout_s=0.2)
        self._batch += 1

    def crash(self) -> None:
        """See `Machine.crash`."""
        self._rows_of_earlier_lives = self.acknowledged
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with suppress(EkkoError):  # only so that nothing is left for the end of Python: it reaches nobody any more
                publisher.close(timeout_s=0.0)
