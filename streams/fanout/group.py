"""The fan-out of one shard group of a model: its own reader, its own fenced writer, one transaction after the other."""

import logging
import time

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError, EkkoError, Fenced, FormatTooNew, GapError
from ekko.streams.fanout import metrics
from ekko.streams.fanout.admission import Reason
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.intake import Refusal
from ekko.streams.fanout.pending import Allowance, Waiting
from ekko.streams.fanout.pending_table import FAR_FUTURE_US
from ekko.streams.fanout.recomputation import Recomputation
from ekko.streams.fanout.rejections import rejected
from ekko.streams.fanout.shard import Batch, ShardFanout
from ekko.streams.fanout.takeover import Takeover
from ekko.streams.fanout.wire import WireMeter
from ekko.streams.log import Output, Partition, Reader, Record, TransactionalWriter, reading

_log = logging.getLogger(__name__)
_POLL_RECORDS = 200
_TELL_AGAIN_S = 30.0
"""A failure that lasts is logged again after so long, so that no log looks as if all were well."""
_TRANSACTION_S = 0.2
_LEAST_TRANSACTION_BYTES = 64 * 1024
_BUSY_POLL_S = 0.005
_GATHER_S = 0.002
"""What was published in one call comes shard by shard: waiting for the rest costs less than a transaction each."""
_CALM_S = 30.0


class GroupFanout:
    """Fans the shards of one group out. Any failure ends in a new takeover: the log is the only truth."""

    def __init__(self, model: ModelDeclaration, number: int, context: RegionContext) -> None:
        self.model, self.number = model, number
        self.failure: EkkoError | None = None
        self.halted: dict[int, EkkoError] = {}
        self.waiting = Waiting()
        """As of the last step; may be read by any thread."""
        self._context = context
        self._shards: dict[int, ShardFanout] = {}
        self._recomputations: dict[int, Recomputation] = {}
        self._reader: Reader | None = None
        self._writer: TransactionalWriter | None = None
        self._retry_at_s = 0.0
        self._told_s = 0.0
        self._in_turn_bytes = self._gather_until_s = 0.0
        self._wire = WireMeter()
        self._fenced, self._taken_s = 0, 0.0
        self._transaction_bytes = context.settings.transaction_bytes
        self._labels = context.region.name, model.name, str(number)

    @property
    def positions(self) -> dict[Partition, int]:
        """How far each shard has read the source log; from any thread."""
        return {self._source(number): shard.intake.position for number, shard in dict(self._shards).items()}

    @property
    def reading(self) -> bool:
        """Whether all its shards are being read; from any thread."""
        return bool(self._shards) and self.failure is None and not self.halted

    def step(self, now_s: float) -> bool:
        """Take what has come, send what may go; returns whether anything was done."""
        if now_s < self._retry_at_s:
            return False
        try:
            if self._reader is None:
                self._take_over(now_s)
            return self._work(now_s)
        except (EkkoError, TimeoutError) as error:
            self._fail(error if isinstance(error, EkkoError) else EkkoError(str(error)), now_s)
            return False

    def close(self) -> None:
        """Release the connections; a transaction under way is aborted."""
        for client in (self._reader, self._writer):
            if client is not None:
                client.close()
        for recomputation in self._recomputations.values():
            recomputation.close()
        self._reader = self._writer = None
        self._shards, self._recomputations = {}, {}

    def retire(self) -> None:
        """Close for good: the group is another instance's, or gone."""
        self.close()
        metrics.forget(*self._labels)

    # ---- taking over -------------------------------------------------------------------------------------------------

    def _take_over(self, now_s: float) -> None:
        context, model = self._context, self.model
        started_s = time.monotonic()
        assert model.incarnation is not None
        assert context.region.incarnation is not None
        identity = topics.fanout_transactional_id(
            model.name, model.incarnation, context.region.name, context.region.incarnation, self.number
        )
        takeover, numbers = Takeover(context, model), list(range(self.number, model.shards, model.shard_groups))
        takeover.check_seeded(numbers)  # before anybody is fenced: who seeds writes under the same identity
        self._writer = context.regional.transactional_writer(identity, thin_link=context.budget.limited)
        self._wire = WireMeter()
        self._shards = takeover.rebuild(numbers)
        positions = {self._source(number): shard.intake.position for number, shard in self._shards.items()}
        reader = reading(context.central, positions)
        self._reader, self.failure, self.halted, self._taken_s = reader, None, {}, now_s
        metrics.TAKEOVERS.labels(*self._labels).inc()
        rows = sum(shard.pending.rows for shard in self._shards.values())
        place = ", ".join(f"{number}: {shard.intake.position}" for number, shard in self._shards.items())
        took_s = time.monotonic() - started_s
        _log.info("%s taken over in %.2f s: %d rows wait, source positions %s", identity, took_s, rows, place)

    def _fail(self, error: EkkoError, now_s: float) -> None:
        lasting = isinstance(error, GapError | FormatTooNew | ConfigurationError)
        # Two instances that each believe a group to be theirs must not fence each other at full speed.
        calm = now_s > self._taken_s + _CALM_S
        self._fenced = (0 if calm else self._fenced) + isinstance(error, Fenced)
        if self.failure is None or str(self.failure) != str(error) or now_s - self._told_s > _TELL_AGAIN_S:
            self._told_s = now_s
            name = f"fan-out of {self.model.name}, group {self.number}, to {self._context.region.name}"
            _log.log(logging.ERROR if lasting else logging.WARNING, "%s: %s (%s)", name, error, error.hint)
        self.close()
        self.failure = error
        metrics.FAILING.labels(*self._labels).set(1)
        self._retry_at_s = now_s + self._context.settings.retry_s * (10 if lasting else min(2**self._fenced, 16))

    # ---- working -----------------------------------------------------------------------------------------------------

    def _work(self, now_s: float) -> bool:
        context = self._context
        took = self._read(now_s)
        if any(shard.intake.held for shard in self._shards.values()):
            context.catalogue.poll()
        batches = self._plan(now_s) if self._may_write(now_s) else []
        if batches:
            self._write(batches, now_s)
        recomputed = self._recompute()
        self._report(now_s)
        return took or recomputed or bool(batches)

    def _recompute(self) -> bool:
        """Go on with computing again what was forgotten at the memory bound."""
        for number, shard in self._shards.items():
            arrival = shard.recomputable()
            if number not in self._recomputations and arrival is not None:
                self._recomputations[number] = Recomputation(self._context, self.model, shard, arrival)
        done = [recomputation.step() for recomputation in self._recomputations.values()]
        self._recomputations = {at: each for at, each in self._recomputations.items() if not each.finished}
        return any(done)

    def _read(self, now_s: float) -> bool:
        """Read until nothing is there, a transaction is full, or a barrier ends the batch."""
        assert self._reader is not None
        waiting = any(shard.awake(now_s).rows or shard.recomputable() is not None for shard in self._shards.values())
        timeout_s = min(self._context.settings.poll_s, _BUSY_POLL_S) if waiting else self._context.settings.poll_s
        # What a budget keeps back waits and is summed: on a thin link far more is read than a transaction may carry.
        limited = self._context.budget.limited
        most_bytes = self._context.settings.transaction_bytes if limited else self._transaction_bytes
        taken_bytes, barrier = 0, False
        gathered_s: float | None = None
        while taken_bytes < most_bytes and not barrier:
            records = self._reader.poll(timeout_s, _POLL_RECORDS)
            if not records:
                break
            gathered_s = time.monotonic() + _GATHER_S if gathered_s is None else gathered_s
            timeout_s = max(0.0, gathered_s - time.monotonic())
            for record in records:
                taken_bytes += len(record.value or b"")
                barrier = self._take(record) or barrier
            metrics.LAG.labels(*self._labels).set(max(0.0, now_s - records[-1].timestamp_ms / 1000))
        return taken_bytes > 0

    def _take(self, record: Record) -> bool:
        """Give a record to its shard; one that it cannot take halts that shard and no other."""
        number = record.partition.number
        if number in self.halted:
            return False
        try:
            return self._shards[number].read(record)
        except (FormatTooNew, GapError) as error:
            assert self._reader is not None
            self._reader.pause([record.partition])
            self.halted[number] = error
            _log.critical(
                "fan-out of %s to %s: shard %d HALTS at offset %d: %s (%s)",
                self.model.name,
                self._context.region.name,
                number,
                record.offset,
                error,
                error.hint,
            )
            return False

    def _may_write(self, now_s: float) -> bool:
        """Whether it is time for a transaction; it is for a barrier always."""
        return now_s >= self._gather_until_s or any(shard.intake.barriers for shard in self._shards.values())

    def _plan(self, now_s: float) -> list[Batch]:
        context = self._context
        oldest_us = min((shard.awake(now_s).oldest_us for shard in self._shards.values()), default=0)
        due_us = int((now_s - context.settings.bulk_max_age_s) * 1e6)
        granted, ratio = context.budget.for_bulk(now_s, overdue=oldest_us < due_us), self._wire.ratio
        allowance = Allowance(min(granted.total / ratio, self._transaction_bytes), granted.in_turn / ratio, due_us)
        in_turn = allowance.in_turn
        batches = []
        for shard in self._shards.values():
            context.trainers.follow(self.model.name, shard.intake.barriers)
        # The shard that was first is last next time: a full budget starves nobody.
        order = list(self._shards)
        self._shards = {number: self._shards[number] for number in order[1:] + order[:1]}
        for shard in self._shards.values():
            batch = shard.plan(context.sorter, now_s, allowance)
            if batch is not None:
                batches.append(batch)
                allowance = allowance.after(batch.bulk_bytes)
        self._in_turn_bytes = in_turn - allowance.in_turn
        return batches

    def _write(self, batches: list[Batch], now_s: float) -> None:
        assert self._writer is not None
        outputs: list[Output] = []
        lanes: list[tuple[int, Lane] | None] = []
        sent = dict.fromkeys(Lane, 0)
        for batch in batches:
            for lane, block in batch.blocks:
                outputs.append(Output(self._lane(block.shard, lane), encode(block)))
                lanes.append((block.shard, lane))
                size = len(outputs[-1].value or b"")
                sent[lane] += size
                metrics.count_block(*self._labels[:2], lane, len(block.keys), size)
            outputs += [self._rejection(refusal, batch.state.shard, now_s) for refusal in batch.refusals]
            outputs.append(self._state(batch))
            lanes += [None] * (len(outputs) - len(lanes))
        started_s = time.monotonic()
        offsets = self._writer.transact(outputs, self._context.settings.timeout_s)
        took_s = time.monotonic() - started_s
        for place, offset in zip(lanes, offsets, strict=True):
            if place is not None:
                self._shards[place[0]].sequencer.committed({place[1]: offset + 1})
        self._pay(sent[Lane.EXPRESS], sent[Lane.BULK], now_s)
        self._gather_until_s = now_s + self._context.budget.gather_s(len(outputs))
        metrics.TRANSACTION_SECONDS.labels(*self._labels[:2]).observe(took_s)
        self._adapt(took_s)

    def _pay(self, express_bytes: int, bulk_bytes: int, now_s: float) -> None:
        """Account for what was sent, in bytes on the wire."""
        assert self._writer is not None
        express, bulk = self._wire.sent(express_bytes), self._wire.sent(bulk_bytes)
        missing = self._wire.counted(self._writer.wire_bytes)
        self._context.budget.spend(express + missing, bulk, self._in_turn_bytes * self._wire.ratio, now_s)
        metrics.WIRE_BYTES.labels(*self._labels).set(self._writer.wire_bytes)

    def _adapt(self, took_s: float) -> None:
        """Keep transactions short on whatever link: express waits for the one under way."""
        if took_s > _TRANSACTION_S:
            self._transaction_bytes = max(self._transaction_bytes // 2, _LEAST_TRANSACTION_BYTES)
        elif took_s < _TRANSACTION_S / 2:
            self._transaction_bytes = min(
                self._transaction_bytes + _LEAST_TRANSACTION_BYTES, self._context.settings.transaction_bytes
            )

    def _rejection(self, refusal: Refusal, shard: int, now_s: float) -> Output:
        metrics.REJECTED.labels(*self._labels[:2], refusal.why.reason).inc()
        if refusal.why.reason not in {Reason.OLD_GENERATION, Reason.DENIED}:  # those come with rollbacks and deny lists
            self._context.refused[self.model.name] += 1
        return rejected(refusal, self.model, self._context.region.name, shard, int(now_s * 1e6))

    def _state(self, batch: Batch) -> Output:
        topic = topics.fanout(self.model.name, self._context.region.name)
        return Output(Partition(topic, batch.state.shard), encode(batch.state), str(batch.state.shard).encode())

    def _source(self, shard: int) -> Partition:
        return Partition(topics.deltas(self.model.name), shard)

    def _lane(self, shard: int, lane: Lane) -> Partition:
        return Partition(topics.lane(self.model.name, self._context.region.name, lane), shard)

    def _report(self, now_s: float) -> None:
        shards = self._shards.values()
        for shard in shards:
            self._context.trainers.add(self.model.name, shard.intake.take_heard())
        rows, nbytes = (sum(shard.pending.rows for shard in shards), sum(shard.pending.nbytes for shard in shards))
        self.waiting = Waiting(rows, nbytes)
        metrics.PENDING_ROWS.labels(*self._labels).set(rows)
        metrics.PENDING_BYTES.labels(*self._labels).set(nbytes)
        oldest_us = min((shard.awake(now_s).oldest_us for shard in shards), default=FAR_FUTURE_US)
        metrics.PENDING_AGE.labels(*self._labels).set(max(0.0, now_s - oldest_us / 1e6))
        metrics.FORGOTTEN.labels(*self._labels).set(sum(len(shard.forgotten) for shard in shards))
        metrics.HELD.labels(*self._labels).set(sum(shard.intake.held for shard in shards))
        metrics.HALTED.labels(*self._labels).set(len(self.halted))
        metrics.FAILING.labels(*self._labels).set(0)
