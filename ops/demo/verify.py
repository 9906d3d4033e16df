"""The demo's proof: both regions hold, bit for bit, the sum of what stands in the source log.

The expected rows come from the raw, read-committed source topic by way of `source_sums`, and are compared with what the
stores say in two ways: the checksum a store keeps, and a lookup of every key through the client.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from ekko.ops.demo.plan import TABLE, TRAINER, DemoPlan
from ekko.ops.demo.source_sums import Keys, Published, Rows, SourceSums
from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import EkkoError, GapError, NotReady
from ekko.schemas.hashing import checksum
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import to_float
from ekko.storage.client import StoreClient
from ekko.streams.log import Cluster, Partition, read_all

RETRY_S = 0.1
LOOKUP_KEYS = 10_000


@dataclass(slots=True)
class Verification:
    """What the check found.

    Attributes:
        last_state: the model state that was compared, the first one after the last delta.
        middle_state: an earlier state that was compared too, read back in time; None if every earlier one is withdrawn.
        keys: distinct keys with a row.
        published: what the trainer's blocks in the log add up to.
        rollbacks: of the model; nobody has asked for one in a demo.
        rejected: records each region's fan-out refused.
        problems: one sentence for each difference; none means that everything is bit-identical.
    """

    last_state: int = 0
    middle_state: int | None = None
    keys: int = 0
    published: Published = field(default_factory=Published)
    rollbacks: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def bit_identical(self) -> bool:
        """Whether every comparison held."""
        return not self.problems


def verify(
    cluster: Cluster, plan: DemoPlan, model: ModelDeclaration, acknowledged: Published | None, timeout_s: float
) -> Verification:
    """Wait for the barrier after the last delta and for both regions to be complete there, then compare everything.

    Args:
        cluster: the broker.
        plan: the run; its trainer has stopped.
        model: the declaration with its incarnation.
        acknowledged: the publisher's own totals; None when they were lost with a killed trainer.
        timeout_s: for the whole wait.

    Raises:
        NotReady: no such barrier, or a region is not complete there in time.
        GapError: the source topic no longer holds everything.
    """
    deadline = time.monotonic() + timeout_s
    sums = read_source(cluster, model, deadline)
    assert sums.barrier is not None
    found = Verification(last_state=sums.barrier.epoch, rollbacks=sums.barrier.generation)
    found.published = sums.published.get(TRAINER, Published())
    if acknowledged is not None and acknowledged != found.published:
        found.problems.append(f"acknowledged to the publisher: {acknowledged}, in the log: {found.published}")
    keys, _ = sums.rows(TABLE)
    found.keys = len(keys)
    for region, address in plan.stores.items():
        with StoreClient(region, plan.model, stores=[address], timeout_s=5.0) as client:
            _await_complete(client, found.last_state, deadline)
            found.middle_state = _middle_state(sums, client.state().bound)
            states = [None, found.last_state, *([found.middle_state] if found.middle_state is not None else [])]
            for state in states:
                found.problems += _differences(client, model, sums, state)
        found.rejected[region] = len(read_all(cluster, topics.rejected(plan.model, region)))
        if found.rejected[region] != sum(sums.skipped.values()):
            found.problems.append(f"{region}: {found.rejected[region]} rejected, expected {dict(sums.skipped)}")
    return found


def read_source(cluster: Cluster, model: ModelDeclaration, deadline: float) -> SourceSums:
    """Read the source topic from its beginning until every partition has a barrier after the deltas of now.

    ``deadline`` is a time of `time.monotonic`.

    Raises:
        GapError: its beginning is gone.
        NotReady: no such barrier came in time.
    """
    assert model.incarnation is not None
    sums = SourceSums(model.incarnation)
    partitions = [Partition(topics.deltas(model.name), shard) for shard in range(model.shards)]
    bounds = cluster.bounds(partitions)
    gone = {partition: bound.low for partition, bound in bounds.items() if bound.low > 0}
    if gone:
        raise GapError(f"the source log no longer begins at offset 0: {gone}", hint="the sum cannot be recomputed")
    waiting = set(partitions)
    reader = cluster.reader()
    try:
        reader.assign(dict.fromkeys(partitions, 0))
        while waiting or _behind(sums):
            if time.monotonic() > deadline:
                raise NotReady(f"no barrier after the last delta in {sorted(waiting)}", hint="does the manager run?")
            for record in reader.poll(0.2):
                before = sums.epochs().get(record.partition.number, 0)
                sums.feed([record])
                opened = sums.epochs().get(record.partition.number, 0) != before
                if opened and record.offset >= bounds[record.partition].end:
                    waiting.discard(record.partition)
    finally:
        reader.close()
    return sums


def _behind(sums: SourceSums) -> bool:
    """Whether the last barrier has been read in some partitions only."""
    return len(set(sums.epochs().values())) > 1


def _await_complete(client: StoreClient, state: int, deadline: float) -> None:
    complete: int | str = "unknown"
    while True:
        try:
            complete = client.state().complete
            if complete >= state:
                return
        except EkkoError as error:
            complete = str(error)
        if time.monotonic() > deadline:
            raise NotReady(
                f"region {client.region} is not complete at model state {state} (complete: {complete})",
                hint="look into the logs of its fan-out and store",
            )
        time.sleep(RETRY_S)


def _middle_state(sums: SourceSums, bound: int) -> int | None:
    """A state about half way that can still be read everywhere."""
    assert sums.barrier is not None
    withdrawn = sums.barrier.withdrawn
    first = max(bound, max((void.last + 1 for void in sums.voids()), default=1), 1)
    states = [state for state in range(first, sums.barrier.epoch) if not any(state in run for run in withdrawn)]
    return states[len(states) // 2] if states else None


def _differences(client: StoreClient, model: ModelDeclaration, sums: SourceSums, state: int | None) -> list[str]:
    """Compare one region with the expected rows, now (None) or as of a state; a sentence for each difference."""
    keys, rows = sums.rows(TABLE, state)
    when = "now" if state is None else f"as of state {state}"
    problems = []
    stored, expected = client.checksum(TABLE, as_of=state), checksum(TABLE, keys, rows)
    if (stored.checksum, stored.rows) != (expected, len(keys)):
        problems.append(
            f"{client.region} {when}: {stored.rows} rows with checksum {stored.checksum:016x}, "
            f"expected {len(keys)} rows with {expected:016x}"
        )
    different = sum(
        _different_rows(client, model, keys[start : start + LOOKUP_KEYS], rows[start : start + LOOKUP_KEYS], state)
        for start in range(0, len(keys), LOOKUP_KEYS)
    )
    if different:
        problems.append(f"{client.region} {when}: {different} of {len(keys)} keys read differently than expected")
    return problems


def _different_rows(client: StoreClient, model: ModelDeclaration, keys: Keys, rows: Rows, state: int | None) -> int:
    table = model.table(TABLE)
    expected = to_float(rows + initial_rows(table, keys), table.fraction_bits)
    read = client.lookup(TABLE, keys, as_of=state)
    same = (read.values.view(np.uint32) == expected.view(np.uint32)).all(axis=1) & read.found
    return int(np.count_nonzero(~same))
