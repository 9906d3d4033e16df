"""Laws 1, 5 and 6: rows are those of a store that never saw a voided delta, now and as of every state; equal bits."""

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from ekko.schemas.errors import StateUnavailable
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.quantize import Int32s
from tests.simulation.replica import Replica
from tests.simulation.truth import Truth


def check_rows(truth: Truth, replica: Replica) -> None:
    """Every owned row equals the truth, absent ones are absent, and there are no others."""
    for table, keys, expected in _owned(truth, replica, before=None):
        rows, found = replica.store.lookup(table, keys)
        _same(keys, rows, expected, f"{replica.name}, table {table}")
        assert (found == expected.any(axis=1)).all(), f"{replica.name}, table {table}: wrong rows count as absent"
        count = replica.store.row_count(table)
        assert count == found.sum(), f"{replica.name}, table {table}: {count} rows, expected {found.sum()}"


def check_as_of(truth: Truth, replica: Replica) -> None:
    """Rows as of every state that can be named equal the truth at that state."""
    for state in range(replica.store.bound, truth.epoch + 1):
        if any(state in run for run in truth.withdrawn):
            continue
        for table, keys, expected in _owned(truth, replica, before=state):
            rows, _ = replica.store.lookup(table, keys, as_of=state)
            _same(keys, rows, expected, f"{replica.name}, table {table} as of state {state}")


def check_kept(truth: Truth, replica: Replica) -> None:
    """At rest: every state that is not withdrawn can be gone back to, and journals are kept for those states alone."""
    oldest = next(state for state in range(truth.epoch + 2) if not any(state in run for run in truth.withdrawn))
    assert replica.store.bound == oldest, f"{replica.name} goes back to {replica.store.bound}, {oldest} is kept"
    united = [label for label in replica.store._directory.labels if truth.label(label) != label]
    assert not united, f"{replica.name} has journals {united} of withdrawn states"


def check_complete_is_honest(truth: Truth, replica: Replica) -> None:
    """In mid-flight: rows as of every state that a replica serves are what had arrived by then, nothing is mixed.

    It serves those up to the one at which it says to be complete, until it has applied a marker that withdraws them.
    `truth` is read with the voids that the replica knows. Shards are left out into which a retraction came since the
    complete one that belongs to an epoch before the state: a replica may have it or not.
    """
    complete = replica.state.complete
    for state in range(replica.store.bound, complete + 1):
        unsure = {entry.origin[0] for entry in truth.accepted if entry.arrival >= complete and entry.effective < state}
        for table, keys, expected in _owned(truth, replica, before=state, without=unsure):
            try:
                rows, _ = replica.store.lookup(table, keys, as_of=state)
            except StateUnavailable:
                break
            _same(keys, rows, expected, f"{replica.name}, table {table}, complete at {complete}, as of {state}")


def check_equal_vectors_equal_bits(replicas: Iterable[Replica]) -> None:
    """Replicas of a region that own the same shards and stand at equal vectors have equal checksums."""
    seen: dict[object, Replica] = {}
    for replica in replicas:
        state = replica.state
        place = (
            replica.region,
            state.voids,
            tuple((shard, at.express.offset, at.bulk.offset) for shard, at in sorted(state.shards.items())),
        )
        other = seen.setdefault(place, replica)
        if other is not replica:
            mine, theirs = (each.checksums(as_of=None) for each in (replica, other))
            assert mine == theirs, f"{replica.name} and {other.name} have equal vectors {place} and differ"


def check_regions_equal(replicas: list[Replica]) -> None:
    """As of the last state complete at both, replicas of different regions that own the same shards are equal."""
    for one in replicas:
        for other in replicas:
            if one.region < other.region and one.shards == other.shards:
                state = min(one.state.complete, other.state.complete)
                mine, theirs = (each.checksums(as_of=state) for each in (one, other))
                assert mine == theirs, f"{one.name} and {other.name} differ as of state {state}"


def _owned(
    truth: Truth, replica: Replica, *, before: int | None, without: Collection[int] = ()
) -> Iterator[tuple[str, UInt64s, Int32s]]:
    """Keys of the replica's shards with the rows that they must have, by table."""
    for table in truth.model.tables:
        keys = truth.keys[table.name]
        mine = np.isin(shard_of(keys, truth.model.shards), [shard for shard in replica.shards if shard not in without])
        expected = truth.rows(table.name, before=before)[mine]
        if table.name in replica.tables:
            yield table.name, keys[mine], expected
        else:  # it learns of a table with its first rows
            assert not expected.any(), f"{replica.name} does not know table {table.name}, of which it owns rows"


def _same(keys: UInt64s, rows: Int32s, expected: Int32s, what: str) -> None:
    wrong = np.flatnonzero((rows != expected).any(axis=1))
    if len(wrong):
        first = wrong[0]
        raise AssertionError(
            f"{what}: {len(wrong)} of {len(keys)} rows are wrong; the first: key {keys[first]} is "
            f"{rows[first].tolist()}, expected {expected[first].tolist()}"
        )
