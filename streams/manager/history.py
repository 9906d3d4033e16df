"""What the log says about a model's epochs: the last committed barrier and the states published so far.

Barriers and the control record are written in one transaction, so the control topic names the last committed barrier,
and every source partition holds it, perhaps still behind a trainer's open transaction: it is waited for there, because
the source's stable end alone could hide it. Nothing is ever taken from memory.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ekko.schemas import topics
from ekko.schemas.codec import Kind, kind_of
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, ModelState
from ekko.schemas.errors import FormatError, FormatTooNew, GapError
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Cluster, Partition, Reader, Record, read_all, read_between
from ekko.streams.manager.barriers import beginning

CONTROL_KEY = b"control"
_POLL_S = 0.02


class Decoder(Protocol):
    """A codec, or a catalogue that has learnt writer schemas."""

    def decode(self, value: bytes | None) -> Any:
        """See `Codec.decode`."""


@dataclass(frozen=True, slots=True)
class History:
    """A model's epochs as committed.

    Attributes:
        barrier: the last committed barrier, or `beginning`.
        states: published states by epoch.
        unpublished: states whose barriers are committed, but whose records are not: their manager died in between.
        ends: ends of control and states topics when all this was read.
    """

    barrier: Barrier
    states: dict[int, ModelState]
    unpublished: list[ModelState]
    ends: dict[Partition, int]


def read_history(cluster: Cluster, codec: Decoder, model: ModelDeclaration, *, timeout_s: float = 30.0) -> History:
    """Read a model's epochs back; final only if older writers of its barriers are fenced.

    Raises:
        GapError: control record, states and barriers contradict one another, or what is needed is gone.
        FormatTooNew: a newer manager was here.
        TimeoutError: the source could not be read up to the last barrier in time.
    """
    bounds = cluster.bounds(_control_partitions(model))
    ends = {partition: bound.end for partition, bound in bounds.items()}
    records = read_between(cluster, bounds, timeout_s=timeout_s)
    last = _last_barrier(codec, model, records)
    states = _states(codec, model, records)
    newest = max(states, default=0)
    if last is None and not states:
        return History(beginning(_incarnation(model)), {}, [], ends)
    if last is None or newest > last.epoch:
        raise GapError(
            f"{topics.control(model.name)} ends at {'nothing' if last is None else f'epoch {last.epoch}'}, "
            f"but {topics.states(model.name)} holds state {newest}",
            hint="the control topic was trimmed or written by somebody else; restore it from a backup",
        )
    if newest == last.epoch:
        return History(last, states, [], ends)
    starts = _starts(cluster, model, states.get(newest))
    found = _find_barriers(cluster, codec, model, starts, last=last, timeout_s=timeout_s)
    unpublished = [state_of(model, barrier, offsets) for barrier, offsets in found if barrier.epoch > newest]
    if [state.epoch for state in unpublished] != list(range(newest + 1, last.epoch + 1)):
        raise GapError(f"model {model.name}: barriers {newest + 1} to {last.epoch} are not all in the source log")
    return History(last, states, unpublished, ends)


def is_current(cluster: Cluster, history: History) -> bool:
    """Whether nothing was written since `history` was read."""
    bounds = cluster.bounds(history.ends)
    return all(bounds[partition].end == end for partition, end in history.ends.items())


def read_control(cluster: Cluster, codec: Decoder, model: ModelDeclaration) -> Barrier | None:
    """The last committed barrier by the control topic; None before the first."""
    return _last_barrier(codec, model, read_all(cluster, topics.control(model.name)))


def read_states(cluster: Cluster, codec: Decoder, model: ModelDeclaration) -> dict[int, ModelState]:
    """Published states of the model's present incarnation by epoch, in order."""
    return _states(codec, model, read_all(cluster, topics.states(model.name)))


def newest_generation(
    cluster: Cluster,
    codec: Decoder,
    model: ModelDeclaration,
    places: Mapping[Partition, int],
    *,
    timeout_s: float = 30.0,
) -> int:
    """The newest generation that is in force at one of these records of the source log, by the barriers before them.

    The control topic may tell of a rollback later than that: it has an end of its own up to which it can be read.

    Args:
        places: offset of a committed record, by partition.

    Raises:
        TimeoutError: something before these records was not decided in time.
        GapError: retention has passed the last state before them.
    """
    before = [
        state
        for state in read_states(cluster, codec, model).values()
        if all(state.offsets[partition.number] < offset for partition, offset in places.items())
    ]
    newest = before[-1] if before else None
    starts = {partition: offset for partition, offset in _starts(cluster, model, newest).items() if partition in places}

    def behind(reader: Reader) -> list[int]:
        return [partition.number for partition, offset in places.items() if reader.position(partition) <= offset]

    generations = [newest.generation if newest is not None else 0]
    for barrier, record in _barriers(cluster, codec, model, starts, behind=behind, timeout_s=timeout_s):
        if record.offset < places[record.partition]:
            generations.append(barrier.generation)
    return max(generations)


def barrier_in(codec: Decoder, model: ModelDeclaration, record: Record) -> Barrier | None:
    """The barrier of the model's present incarnation that a record carries, if it does."""
    if record.value is None:
        return None
    message = codec.decode(record.value)
    return message if isinstance(message, Barrier) and message.incarnation == model.incarnation else None


def read_audit(cluster: Cluster, codec: Decoder, model: ModelDeclaration) -> list[AuditEntry]:
    """The model's audit trail, oldest first."""
    messages = (codec.decode(record.value) for record in read_all(cluster, topics.audit(model.name)) if record.value)
    return [message for message in messages if isinstance(message, AuditEntry)]


def state_of(model: ModelDeclaration, barrier: Barrier, offsets: tuple[int, ...]) -> ModelState:
    """The candidate that `barrier` opens; `offsets` are its own, one a shard."""
    return ModelState(
        model=model.name,
        incarnation=barrier.incarnation,
        epoch=barrier.epoch,
        generation=barrier.generation,
        offsets=offsets,
        written_us=barrier.written_us,
        changed_us=barrier.written_us,
    )


def source_partitions(model: ModelDeclaration) -> list[Partition]:
    """The partitions of the model's source log, one a shard."""
    return [Partition(topics.deltas(model.name), shard) for shard in range(model.shards)]


def _control_partitions(model: ModelDeclaration) -> list[Partition]:
    return [Partition(topics.control(model.name), 0), Partition(topics.states(model.name), 0)]


def _last_barrier(codec: Decoder, model: ModelDeclaration, records: list[Record]) -> Barrier | None:
    last: Barrier | None = None
    for record in records:
        if record.partition.topic == topics.control(model.name):
            last = barrier_in(codec, model, record) or last
    return last


def _states(codec: Decoder, model: ModelDeclaration, records: list[Record]) -> dict[int, ModelState]:
    found: dict[int, ModelState] = {}
    for record in records:
        if record.partition.topic != topics.states(model.name):
            continue
        if record.value is None:
            found.pop(int(record.key or b"0"), None)
            continue
        message = codec.decode(record.value)
        if isinstance(message, ModelState) and message.incarnation == model.incarnation:
            found[message.epoch] = message
    return dict(sorted(found.items()))


def _incarnation(model: ModelDeclaration) -> int:
    assert model.incarnation is not None, "a declaration read from the catalogue has its incarnation"
    return model.incarnation


def _starts(cluster: Cluster, model: ModelDeclaration, newest: ModelState | None) -> dict[Partition, int]:
    partitions = source_partitions(model)
    if newest is None:
        return {partition: bounds.low for partition, bounds in cluster.bounds(partitions).items()}
    return dict(zip(partitions, newest.offsets, strict=True))


def _find_barriers(
    cluster: Cluster,
    codec: Decoder,
    model: ModelDeclaration,
    starts: Mapping[Partition, int],
    *,
    last: Barrier,
    timeout_s: float,
) -> list[tuple[Barrier, tuple[int, ...]]]:
    """Barriers from `starts` to `last` with their offsets, in order; the same ones in every partition."""
    seen: dict[Partition, dict[int, tuple[Barrier, int]]] = {partition: {} for partition in starts}

    def behind(_: Reader) -> list[int]:
        return [partition.number for partition, barriers in seen.items() if last.epoch not in barriers]

    for barrier, record in _barriers(cluster, codec, model, starts, behind=behind, timeout_s=timeout_s):
        if barrier.epoch <= last.epoch:
            seen[record.partition][barrier.epoch] = (barrier, record.offset)
    return _agreed(model, list(seen.values()))


def _barriers(
    cluster: Cluster,
    codec: Decoder,
    model: ModelDeclaration,
    starts: Mapping[Partition, int],
    *,
    behind: Callable[[Reader], list[int]],
    timeout_s: float,
) -> Iterator[tuple[Barrier, Record]]:
    """The barriers of the source log from `starts` on, for as long as some shard is `behind`."""
    reader = cluster.reader()
    waited_s = 0.0  # counted in empty polls, so that simulated time works too
    try:
        reader.assign(starts)
        while shards := behind(reader):
            records = reader.poll(_POLL_S)
            waited_s = 0.0 if records else waited_s + _POLL_S
            if waited_s > timeout_s:
                raise TimeoutError(
                    f"model {model.name}: the source log of shards {shards} was not read to where it must be in "
                    f"{timeout_s:g} s; somebody's transaction may be open for long, or the broker away"
                )
            for record in records:
                if _is_barrier(record.value):
                    barrier = barrier_in(codec, model, record)
                    if barrier is not None:
                        yield barrier, record
    finally:
        reader.close()


def _is_barrier(value: bytes | None) -> bool:
    """By the header alone: whatever else stands in the source is the fan-outs' business, however bad."""
    try:
        return kind_of(value) is Kind.BARRIER
    except (FormatError, FormatTooNew):
        return False


def _agreed(
    model: ModelDeclaration, shards: list[dict[int, tuple[Barrier, int]]]
) -> list[tuple[Barrier, tuple[int, ...]]]:
    first = shards[0]
    for number, barriers in enumerate(shards):
        if {epoch: barrier for epoch, (barrier, _) in barriers.items()} != {
            epoch: barrier for epoch, (barrier, _) in first.items()
        }:
            raise GapError(f"model {model.name}: shards 0 and {number} of the source log hold different barriers")
    return [
        (barrier, tuple(barriers[epoch][1] for barriers in shards)) for epoch, (barrier, _) in sorted(first.items())
    ]
