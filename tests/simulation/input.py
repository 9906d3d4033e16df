"""What comes into the source log beside the trainers' blocks: retractions, rollbacks, and rubbish."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.signals import Signal
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Output, Partition
from ekko.streams.manager.barriers import Amendment, allowing, beginning, denying, rolling_back, withdrawing
from ekko.streams.manager.tenure import Tenure
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.truth import committed

Garble = Callable[[random.Random, DeltaBlock], bytes | None]


class Input:
    """Writes to the source log on a connection on which nothing goes wrong.

    Attributes:
        rolled_back: epochs of the barriers by which it has rolled the model back; no audit entry tells of them.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._cluster = environment.healthy()
        self._writer = self._cluster.writer()
        self._catalogue = Catalogue(self._cluster)
        self._catalogue.refresh()
        key_rng = np.random.default_rng(environment.scenario.seed)
        self.rolled_back: set[int] = set()
        self.keys: UInt64s = np.unique(key_rng.integers(0, 2**64, environment.scenario.keys, dtype=np.uint64))

    @property
    def model(self) -> ModelDeclaration:
        """The model as declared now."""
        self._catalogue.refresh()
        return self._catalogue.model(self._environment.scenario.model)

    def block(self) -> DeltaBlock:
        """A good block of some shard and table, of the generation in force."""
        rng, model = self._environment.rng, self.model
        table = rng.choice(model.tables)
        shards = shard_of(self.keys, model.shards)
        shard = int(rng.choice(shards))
        mine = self.keys[shards == shard]
        keys = np.sort(np.array(rng.sample(mine.tolist(), rng.randint(1, len(mine))), np.uint64))
        reach = rng.choice((3, 300, 2**31 - 1))
        deltas = [[rng.randint(-reach, reach) for _ in range(table.dim)] for _ in keys]
        return DeltaBlock(
            incarnation=model.incarnation or 0,
            table=table.name,
            shard=shard,
            keys=keys,
            deltas=np.array(deltas, np.int32),
            trainer="raw",
            generation=self._last().generation,
            catalogue=self._catalogue.end,
            published_us=int(self._environment.clock() * 1e6),
        )

    def publish(self) -> None:
        """A good block."""
        self._send(self.block())

    def retract(self) -> None:
        """Deltas that belong to an earlier epoch."""
        last = self._last()
        effective = self._environment.rng.randint(0, last.epoch)
        block = replace(
            self.block(), purpose=Purpose.RETRACT, effective=effective, operation="retract-1/0", generation=0
        )
        self._environment.log(f"retraction of epoch {effective} in shard {block.shard}")
        self._send(block)

    def rubbish(self) -> None:
        """A record that must be refused."""
        block = self.block()
        garble = self._environment.rng.choice(GARBLES)
        value = garble(self._environment.rng, block)
        self._environment.log(f"rubbish in shard {block.shard}: {garble.__name__}")
        self._write(block.shard, value)

    def roll_back(self) -> None:
        """Go back to an earlier state; whoever leads finds itself fenced."""
        epoch = self._last().epoch
        if epoch:
            amendment = rolling_back(self._environment.rng.randint(max(0, epoch - 3), epoch))
            self.rolled_back |= self._amend(amendment, "rollback")

    def withdraw(self) -> None:
        """Give up some earlier states."""
        epoch = self._last().epoch
        if epoch > 1:
            chosen = {self._environment.rng.randint(1, epoch - 1) for _ in range(2)}
            self._amend(withdrawing(chosen - {self._last().pinned}), "withdrawal")

    def deny_or_allow(self) -> None:
        """Put a trainer on the deny list, or take it off."""
        trainer = self._environment.rng.choice(("trainer-0", "raw"))
        self._amend(self._environment.rng.choice((denying, allowing))(trainer), "deny list")

    def _amend(self, amendment: Amendment, what: str) -> set[int]:
        """The epoch of the barrier, if it was written."""
        try:
            tenure = self._tenure()
        except TimeoutError as error:  # a trainer's open transaction hides the last barrier
            self._environment.log(f"no {what}: {error}")
            return set()
        try:
            tenure.write_barrier(self._catalogue_end(), self._environment.clock(), amendment)
        except StateUnavailable as error:
            self._environment.log(f"no {what}: {error}")
            return set()
        finally:
            tenure.close()
        self._environment.log(f"{what}: {tenure.barrier}")
        return {tenure.barrier.epoch}

    def barrier(self) -> int:
        """A barrier more; the epoch that it opens."""
        tenure = self._tenure()
        state = tenure.write_barrier(self._catalogue_end(), self._environment.clock())
        tenure.close()
        return state.epoch

    def _tenure(self) -> Tenure:
        return Tenure(self._cluster, self._catalogue.codec, self.model, self._environment.clock())

    def _catalogue_end(self) -> int:
        self._catalogue.refresh()
        return self._catalogue.end

    def _last(self) -> Barrier:
        control = committed(self._environment.brokers[CENTRAL], Partition(topics.control(self.model.name), 0))
        barrier = self._catalogue.codec.decode(control[-1].value) if control else beginning(self.model.incarnation or 0)
        assert isinstance(barrier, Barrier)
        return barrier

    def _send(self, block: DeltaBlock) -> None:
        self._write(block.shard, encode(block))

    def _write(self, shard: int, value: bytes | None) -> None:
        self._writer.send(Output(Partition(topics.deltas(self.model.name), shard), value))
        self._writer.flush(1.0)


def tombstone(rng: random.Random, block: DeltaBlock) -> bytes | None:
    """No value."""
    del rng, block
    return None


def noise(rng: random.Random, block: DeltaBlock) -> bytes:
    """Bytes that are no record of ours."""
    del block
    return rng.randbytes(rng.randint(0, 40))


def headed_noise(rng: random.Random, block: DeltaBlock) -> bytes:
    """Our magic, then a kind and a version that no software will ever have."""
    del block
    return b"EK" + bytes((rng.randint(64, 255), rng.randint(64, 255))) + rng.randbytes(rng.randint(0, 40))


def truncated(rng: random.Random, block: DeltaBlock) -> bytes:
    """A good record cut off."""
    value = encode(block)
    return value[: rng.randrange(12, len(value))]


def foreign_schema(rng: random.Random, block: DeltaBlock) -> bytes:
    """A fingerprint that no catalogue knows."""
    value = encode(block)
    return value[:4] + rng.randbytes(8) + value[12:]


def wrong_kind(rng: random.Random, block: DeltaBlock) -> bytes:
    """A record that belongs into another topic."""
    del rng, block
    return encode(Signal("ctr", "east", "serving/1", "requests", 1.0, 1, 0))


def wrong_dim(rng: random.Random, block: DeltaBlock) -> bytes:
    """Rows of another width."""
    del rng
    return encode(replace(block, deltas=np.ones((len(block.keys), 7), np.int32)))


def unknown_table(rng: random.Random, block: DeltaBlock) -> bytes:
    """A table that nobody declared."""
    del rng
    return encode(replace(block, table="gradinets"))


def other_incarnation(rng: random.Random, block: DeltaBlock) -> bytes:
    """A block for a former model of the same name."""
    del rng
    return encode(replace(block, incarnation=block.incarnation + 1))


def other_shard(rng: random.Random, block: DeltaBlock) -> bytes:
    """A block that says it belongs elsewhere."""
    del rng
    return encode(replace(block, shard=block.shard + 1))


def future_generation(rng: random.Random, block: DeltaBlock) -> bytes:
    """A rollback that has not happened."""
    return encode(replace(block, generation=block.generation + rng.randint(1, 3)))


def future_epoch(rng: random.Random, block: DeltaBlock) -> bytes:
    """A retraction of an epoch that has not begun."""
    del rng
    return encode(replace(block, purpose=Purpose.RETRACT, effective=10_000))


def named_epoch(rng: random.Random, block: DeltaBlock) -> bytes:
    """A trainer's block that names an epoch, which only retractions may."""
    del rng
    return encode(replace(block, effective=0))


def future_catalogue(rng: random.Random, block: DeltaBlock) -> bytes:
    """A catalogue offset that does not exist: nobody can tell before the barrier after next."""
    return encode(replace(block, catalogue=block.catalogue + rng.randint(10**6, 10**7)))


GARBLES: tuple[Garble, ...] = (
    tombstone,
    noise,
    headed_noise,
    truncated,
    foreign_schema,
    wrong_kind,
    wrong_dim,
    unknown_table,
    other_incarnation,
    other_shard,
    future_generation,
    future_epoch,
    named_epoch,
    future_catalogue,
)
