"""What a publisher hears of rollbacks, and what it lets pass meanwhile."""

import logging
import threading
import time
from collections.abc import Callable

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, FormatError, RolledBack
from ekko.streams.log import Cluster, Partition
from ekko.streams.publisher.totals import GENERATION

_log = logging.getLogger("ekko.publisher")


class ControlFollower:
    """Follows `<model>.control`; not thread-safe.

    Attributes:
        generation: the one in force as far as read, that is the count of rollbacks.
    """

    def __init__(self, cluster: Cluster, model: ModelDeclaration, codec: Codec, timeout_s: float) -> None:
        self._incarnation = model.incarnation
        self._codec = codec
        self.generation = 0
        self._reader = cluster.reader()
        try:
            self._read_to_the_end(cluster, Partition(topics.control(model.name), 0), timeout_s)
        except BaseException:
            self._reader.close()
            raise

    def _read_to_the_end(self, cluster: Cluster, partition: Partition, timeout_s: float) -> None:
        bounds = cluster.bounds([partition])[partition]
        self._reader.assign({partition: bounds.low})
        deadline = time.monotonic() + timeout_s
        while self._reader.position(partition) < bounds.end:
            self.poll(0.1)
            if time.monotonic() > deadline:
                raise ConnectionFailed(f"{partition.topic} was not read to {bounds.end} within {timeout_s} s")

    def poll(self, timeout_s: float = 0.0) -> int:
        """Take what came and return the generation in force; no request to the brokers.

        Raises:
            FormatTooNew: a record needs newer software.
        """
        for record in self._reader.poll(timeout_s):
            try:
                message = self._codec.decode(record.value)
            except FormatError as error:
                _log.warning("%s offset %d is skipped: %s", record.partition.topic, record.offset, error)
                continue
            if isinstance(message, Barrier) and message.incarnation == self._incarnation:
                self.generation = max(self.generation, message.generation)
        return self.generation

    def close(self) -> None:
        """Release the connection."""
        self._reader.close()


class RollbackGate:
    """Lets batches pass, stamped with a generation, until the model is rolled back; thread-safe.

    Then it drops the queue, has the trainer pull fresh parameters, and refuses everything until that is done. Of each
    other thread that has published before, it refuses one more batch: that may have been computed meanwhile.

    Args:
        model: its name.
        follower: what is in force.
        given: generation of the trainer's parameters; None: the one in force now.
        on_rollback: pulls fresh parameters; without it nothing passes any more.

    Raises:
        ConfigurationError: `given` is a generation that the model never had.
    """

    def __init__(
        self, model: str, follower: ControlFollower, given: int | None, on_rollback: Callable[[int], None] | None
    ) -> None:
        if given is not None and given > follower.generation:
            raise ConfigurationError(
                f"generation {given} was given, but model {model} was rolled back {follower.generation} time(s) only",
                hint="the parameters were saved from another model of this name; start from fresh ones",
            )
        self._model = model
        self._follower = follower
        self._on_rollback = on_rollback
        self._lock = threading.Lock()
        self._rolling_back = False
        self._threads = threading.local()
        """The generation that each thread has come through with last."""
        self.generation = follower.generation if given is None else given
        GENERATION.labels(model).set(self.generation)

    @property
    def in_force(self) -> int:
        """The generation in force as far as known."""
        return self._follower.generation

    def enter(self, drop: Callable[[], None]) -> int:
        """The generation to stamp on a batch computed now.

        Args:
            drop: called at a rollback, to empty the queue.

        Raises:
            RolledBack: the batch was computed from parameters that are gone.
        """
        with self._lock:
            in_force = self._follower.poll()
            if in_force == self.generation and not self._rolling_back:
                if self._knows(in_force):
                    return in_force
                raise self._rolled_back(in_force)
            first, self._rolling_back = not self._rolling_back, True
        if first:
            try:
                drop()
                self._renew(in_force)
            finally:  # if any of it failed, the next batch tries it again
                self._rolling_back = self._on_rollback is None
        raise self._rolled_back(in_force)

    def _knows(self, generation: int) -> bool:
        """Whether this thread comes with what it has learnt since the last rollback; from now on it does."""
        before, self._threads.generation = getattr(self._threads, "generation", generation), generation
        return bool(before == generation)

    def _renew(self, generation: int) -> None:
        if self._on_rollback is not None:
            self._on_rollback(generation)
            self.generation = self._threads.generation = generation
            GENERATION.labels(self._model).set(generation)

    def check(self, generation: int) -> None:
        """Refuse a batch that was stamped before a rollback became known; raises RolledBack."""
        if self._rolling_back or generation != self.generation:
            raise self._rolled_back(self._follower.generation)

    def _rolled_back(self, generation: int) -> RolledBack:
        remedy = "pull fresh parameters and make a new Publisher, or give it on_rollback="
        return RolledBack(
            f"model {self._model} was rolled back (generation {generation}): this batch was computed from what is gone",
            hint=remedy if self._on_rollback is None else "drop the batch and go on with fresh parameters",
        )
