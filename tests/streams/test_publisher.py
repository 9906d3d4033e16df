"""The publisher on the real log and on its twin: what is in the source log, and what is refused and why."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec, encode, own_schemas
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import (
    BadInput,
    CatalogueConflict,
    ConfigurationError,
    Fenced,
    GapError,
    PublishUncertain,
    QueueFull,
    RolledBack,
)
from ekko.schemas.hashing import shard_of
from ekko.streams.declaring import declare, delete_model
from ekko.streams.declaring_plan import Declarations
from ekko.streams.log import Cluster, Output, Partition, TopicSpec, read_all
from ekko.streams.memory_broker import MemoryBroker
from ekko.streams.memory_log import Fate, Faults, MemoryCluster
from ekko.streams.publisher import Publisher
from ekko.streams.publisher_position import position_shard

USERS, WIDE = TableDeclaration("users", dim=4), TableDeclaration("wide", dim=64)
STEP = 2.0**-24


@pytest.fixture(params=["memory", "kafka"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "memory":
        return MemoryCluster(MemoryBroker(time.monotonic))
    found: Cluster = request.getfixturevalue("kafka")
    return found


@pytest.fixture
def model(topic_prefix: str) -> ModelDeclaration:
    return ModelDeclaration(f"m-{topic_prefix}"[:60], shards=4, tables=(USERS, WIDE))


@pytest.fixture
def declared(cluster: Cluster, model: ModelDeclaration) -> str:
    apply(cluster, model)
    return model.name


def apply(cluster: Cluster, model: ModelDeclaration) -> None:
    declare(cluster, Declarations(models=(model,)), lambda region: pytest.fail(f"connects to {region}"))


@pytest.fixture
def publisher(cluster: Cluster, declared: str) -> Iterator[Publisher]:
    with Publisher(declared, cluster=cluster, trainer="t1") as publisher:
        yield publisher


def blocks_in(cluster: Cluster, model: str) -> list[DeltaBlock]:
    """Every delta block in the source log, read by nothing of the publisher's."""
    codec, found = Codec(), []
    for record in read_all(cluster, topics.deltas(model)):
        message = codec.decode(record.value)
        if isinstance(message, DeltaBlock):
            assert message.shard == record.partition.number
            found.append(message)
    return found


def rows_in(blocks: list[DeltaBlock]) -> dict[int, list[int]]:
    """The sum of all deltas a key."""
    rows: dict[int, np.ndarray] = {}
    for block in blocks:
        for key, delta in zip(block.keys.tolist(), block.deltas.astype(np.int64), strict=True):
            rows[key] = rows.get(key, 0) + delta
    return {key: row.tolist() for key, row in rows.items() if row.any()}


def ones(count: int, dim: int = 4) -> np.ndarray:
    return np.full((count, dim), STEP)


def test_what_is_published_is_in_the_log(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    before_us = time.time_ns() // 1_000
    keys = np.arange(100, dtype=np.uint64)
    created = keys % 10 == 0
    receipt = publisher.publish("users", np.repeat(keys, 3), ones(300), created=np.repeat(created, 3))
    assert (receipt.rows, receipt.blocks) == (100, 4)
    publisher.flush(10)
    blocks = blocks_in(cluster, model.name)
    assert rows_in(blocks) == {key: [3] * 4 for key in range(100)}, "the same key three times adds up to +3"
    for block in blocks:
        assert set(shard_of(block.keys, 4).tolist()) == {block.shard}
        assert (block.table, block.trainer, block.generation, block.incarnation) == (
            "users",
            "t1",
            0,
            publisher.model.incarnation,
        )
        assert block.catalogue > (publisher.model.incarnation or 0)
        flagged = [] if block.created is None else block.keys[block.created].tolist()
        assert flagged == [key for key in block.keys.tolist() if key % 10 == 0]
        assert before_us <= block.published_us <= time.time_ns() // 1_000


def test_acknowledged_totals_are_what_an_independent_reader_finds(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        publisher.publish("users", rng.integers(0, 500, 200), rng.normal(size=(200, 4)))
        publisher.publish("wide", rng.integers(0, 500, 50), rng.normal(size=(50, 64)))
    publisher.flush(10)
    blocks, acknowledged = blocks_in(cluster, model.name), publisher.acknowledged
    assert acknowledged.rows == sum(len(block.keys) for block in blocks)
    assert acknowledged.blocks == len(blocks)
    for table in ("users", "wide"):
        exact = sum(int(value) for block in blocks if block.table == table for value in block.deltas.ravel())
        assert acknowledged.sums[table] == exact % 2**64
    assert acknowledged.total == sum(acknowledged.sums.values()) % 2**64


def test_no_value_that_a_row_cannot_take_reaches_the_log(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e38, 128.0):
        deltas = ones(50)
        deltas[17, 2] = value
        with pytest.raises(BadInput, match=f"key {17 + 1_000}.*nothing of this batch was published"):
            publisher.publish("users", np.arange(50) + 1_000, deltas)
    publisher.publish("users", [1], ones(1))
    publisher.flush(10)
    assert rows_in(blocks_in(cluster, model.name)) == {1: [1] * 4}, "the next batch goes, and nothing of the bad one"


def test_a_batch_without_changes_sends_nothing(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    assert publisher.publish("users", [1, 2, 1], np.array([[1.0] * 4, [0.0] * 4, [-1.0] * 4])).blocks == 0
    assert publisher.publish("users", [], np.empty((0, 4))).blocks == 0
    publisher.flush(10)
    assert blocks_in(cluster, model.name) == []


def test_names_that_do_not_exist_are_refused_with_those_that_do(
    cluster: Cluster, declared: str, publisher: Publisher
) -> None:
    with pytest.raises(ConfigurationError, match="no table 'user'") as table:
        publisher.publish("user", [1], ones(1))
    assert "users, wide" in table.value.hint
    with pytest.raises(ConfigurationError, match="model 'nodel' is not in the catalogue") as missing:
        Publisher("nodel", cluster=cluster)
    assert declared in missing.value.hint


def test_without_a_bootstrap_the_error_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EKKO_BOOTSTRAP", raising=False)
    with pytest.raises(ConfigurationError) as error:
        Publisher("ctr")
    assert "EKKO_BOOTSTRAP" in error.value.hint


def test_a_table_added_at_run_time_is_found(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    publisher.publish("users", [1], ones(1))
    before = publisher.model.tables
    apply(cluster, replace(model, tables=(*model.tables, TableDeclaration("late", dim=2))))
    publisher.publish("late", [1], ones(1, 2))
    publisher.flush(10)
    assert len(before) == 2
    by_table = {block.table: block for block in blocks_in(cluster, model.name)}
    assert by_table["late"].catalogue > by_table["users"].catalogue, "readers must have read on to know the table"


def test_a_deleted_model_takes_nothing_any_more(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    publisher.publish("users", [1], ones(1))
    publisher.flush(10)
    delete_model(cluster, model.name, lambda region: pytest.fail(str(region)))
    publish_until(publisher, lambda error: isinstance(error, ConfigurationError) and "was deleted" in error.message)
    apply(cluster, model)
    publish_until(publisher, lambda error: "created anew" in str(error))
    with Publisher(model.name, cluster=cluster, trainer="t2") as second:
        second.publish("users", [1], ones(1))
    assert {block.trainer for block in blocks_in(cluster, model.name)} == {"t2"}


def publish_until(publisher: Publisher, expected: Callable[[Exception], bool]) -> None:
    """Publish till it raises what is expected; what comes before (on Kafka, the missing topic) is passed over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            publisher.publish("users", [1], ones(1))
        except Exception as error:  # noqa: BLE001 - looked at here
            if expected(error):
                return
        time.sleep(0.02)
    pytest.fail("the expected error did not come")


def test_a_version_whose_schema_readers_cannot_know_is_refused(
    memory_model: tuple[MemoryCluster, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, name = memory_model
    newer = [replace(schema, fingerprint=schema.fingerprint ^ 1) for schema in own_schemas()]
    monkeypatch.setattr("ekko.streams.publisher_model.own_schemas", lambda: newer)
    with pytest.raises(ConfigurationError, match="does not hold the schema") as error:
        Publisher(name, cluster=memory)
    assert "ekko model apply" in error.value.hint


def test_another_partition_count_is_refused(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    memory.delete_topics([topics.deltas(name)])
    memory.create_topics([TopicSpec(topics.deltas(name), 8)])
    with pytest.raises(CatalogueConflict, match=r"8 partition\(s\).*4 shards") as error:
        Publisher(name, cluster=memory)
    assert "ekko model delete" in error.value.hint


@pytest.fixture
def memory_model(model: ModelDeclaration) -> tuple[MemoryCluster, str]:
    memory = MemoryCluster(MemoryBroker(time.monotonic))
    apply(memory, model)
    return memory, model.name


def test_what_happens_is_counted_for_prometheus(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as publisher:
        publisher.publish("users", np.arange(10), ones(10))
        with pytest.raises(BadInput):
            publisher.publish("users", [1], np.full((1, 4), np.nan))

    def sample(metric: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(metric, {"model": name, **labels})

    assert sample("ekko_publisher_rows_total", table="users", fate="acknowledged") == 10
    assert (sample("ekko_publisher_bytes_total", table="users") or 0) > 100
    assert sample("ekko_publisher_refused_batches_total", reason="BadInput") == 1
    assert sample("ekko_publisher_acknowledge_seconds_count") == publisher.acknowledged.blocks
    assert sample("ekko_publisher_queue_bytes") == 0


# -- limits


@pytest.mark.parametrize(("limit", "rows"), [(1_048_588, 20_000), (60_000, 2_000)])
def test_blocks_are_split_to_what_the_topic_takes(
    cluster: Cluster, model: ModelDeclaration, limit: int, rows: int
) -> None:
    one_shard = replace(model, shards=1)
    cluster.create_topics([TopicSpec(topics.deltas(model.name), 1, {"max.message.bytes": str(limit)})])
    apply(cluster, one_shard)
    rng = np.random.default_rng(2)
    with Publisher(model.name, cluster=cluster) as publisher:
        for _ in range(2):  # back to back, so that several blocks may travel in one batch
            receipt = publisher.publish("wide", np.arange(rows), rng.normal(size=(rows, 64)))
        publisher.flush(30)
        assert publisher.acknowledged.rows == 2 * rows
    sizes = [len(record.value or b"") for record in read_all(cluster, topics.deltas(model.name))]
    assert len(sizes) == 2 * receipt.blocks
    assert limit * 0.7 < max(sizes) < limit
    assert sum(sizes) > rows * 64 * 4


def test_blocks_hold_no_more_rows_than_the_catalogue_allows(cluster: Cluster, model: ModelDeclaration) -> None:
    apply(cluster, replace(model, max_rows_a_block=100))
    with Publisher(model.name, cluster=cluster) as publisher:
        publisher.publish("users", np.arange(1_000), ones(1_000))
    blocks = blocks_in(cluster, model.name)
    assert max(len(block.keys) for block in blocks) <= 100
    assert rows_in(blocks) == {key: [1] * 4 for key in range(1_000)}


def test_a_call_larger_than_the_queue_is_refused_at_once(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, queue_bytes=10_000) as publisher:
        with pytest.raises(BadInput, match="the queue holds 10000"):
            publisher.publish("wide", np.arange(1_000), np.ones((1_000, 64)))
        assert publisher.publish("users", [1], ones(1)).rows == 1


class Stuck(Faults):
    """Nothing leaves the queue while `stuck`."""

    stuck = True

    def held_back(self) -> bool:
        return self.stuck

    def reachable(self) -> bool:
        return True


def test_a_full_queue_is_told_and_nothing_of_the_call_is_enqueued(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Stuck()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), queue_bytes=20_000)
    accepted = 0
    started = time.monotonic()
    try:
        for key in range(1_000):
            publisher.publish("wide", np.arange(10) + 10 * key, np.ones((10, 64)), timeout_s=0.1)
            accepted += 1
    except QueueFull as error:
        assert "nothing was enqueued" in error.message  # noqa: PT017 - the count at this moment is what matters
    assert 0 < accepted < 10
    assert time.monotonic() - started < 10
    faults.stuck = False
    publisher.publish("wide", [999], np.ones((1, 64)))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [*range(10 * accepted), 999]


class Uncertain(Faults):
    """The next `count` records have an unknown fate: not written, or written without an answer."""

    def __init__(self, *fates: Fate) -> None:
        self.fates = list(fates)

    def delivery(self) -> Fate:
        return self.fates.pop(0) if self.fates else Fate.DONE

    def transaction(self) -> Fate:
        return self.delivery()


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST])
def test_an_unknown_fate_is_told_once_and_never_sent_again(memory_model: tuple[MemoryCluster, str], fate: Fate) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), trainer="t1")
    faults.fates = [fate]
    publisher.publish("users", [1], ones(1))
    with pytest.raises(PublishUncertain, match=r"1 row\(s\) in 1 block") as error:
        publisher.flush(1)
    assert "never publish them again" in error.value.hint
    publisher.publish("users", [2], ones(1))
    publisher.close()
    expected = {2: [1] * 4} if fate is Fate.REFUSED else {1: [1] * 4, 2: [1] * 4}
    assert rows_in(blocks_in(memory, name)) == expected
    assert publisher.acknowledged.rows == 1


def test_an_unknown_fate_is_told_by_the_next_publish_too_which_then_sends_nothing(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults))
    faults.fates = [Fate.REFUSED]
    publisher.publish("users", [1], ones(1))
    with pytest.raises(PublishUncertain):
        publisher.publish("users", [2], ones(1))
    publisher.publish("users", [3], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [3]


# -- threads


def test_threads_may_share_a_publisher(cluster: Cluster, declared: str) -> None:
    errors: list[Exception] = []
    with Publisher(declared, cluster=cluster, queue_bytes=200_000) as publisher:

        def train(number: int) -> None:
            try:
                for _ in range(20):
                    publisher.publish("wide", np.arange(200) + number * 100, ones(200, 64), timeout_s=60)
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        threads = [threading.Thread(target=train, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert errors == []
        publisher.flush(30)
        assert publisher.acknowledged.rows == 4 * 20 * 200
    expected = np.zeros(500, int)
    for number in range(4):
        expected[number * 100 : number * 100 + 200] += 20
    assert rows_in(blocks_in(cluster, declared)) == {key: [int(value)] * 64 for key, value in enumerate(expected)}


def test_concurrent_trainers_lose_nothing(cluster: Cluster, declared: str) -> None:
    with (
        Publisher(declared, cluster=cluster, trainer="a") as a,
        Publisher(declared, cluster=cluster, trainer="b", transactional_id="b") as b,
    ):
        for step in range(30):
            a.publish("users", np.arange(50), ones(50))
            b.publish("users", np.arange(50), ones(50), position=str(step).encode())
    assert rows_in(blocks_in(cluster, declared)) == {key: [60] * 4 for key in range(50)}


# -- rollback


def roll_back(cluster: Cluster, publisher: Publisher, generation: int) -> None:
    """What the state manager writes at a rollback, as far as a publisher looks at it."""
    barrier = Barrier(publisher.model.incarnation or 0, generation, generation, 0, voids=(EpochRange(0, 0),))
    partition = Partition(topics.control(publisher.model.name), 0)
    writer = cluster.writer()
    writer.send(Output(partition, encode(barrier), b"control"))
    assert writer.flush(10) == 0
    writer.close()


def publish_until_rolled_back(publisher: Publisher) -> int:
    """How many batches went before the rollback was noticed."""
    deadline = time.monotonic() + 20
    for number in range(10**6):
        try:
            publisher.publish("users", [7], ones(1))
        except RolledBack:
            return number
        assert time.monotonic() < deadline, "the rollback was never noticed"
        time.sleep(0.005)
    raise AssertionError


def test_a_rollback_refuses_the_batch_pulls_and_goes_on_with_the_new_generation(
    cluster: Cluster, declared: str
) -> None:
    pulled: list[int] = []
    with Publisher(declared, cluster=cluster, on_rollback=pulled.append) as publisher:
        publisher.publish("users", [1], ones(1))
        publisher.flush(10)
        roll_back(cluster, publisher, 1)
        publish_until_rolled_back(publisher)
        assert pulled == [1]
        publisher.publish("users", [2], ones(1))
        assert publisher.generation == 1
    generations = {int(block.keys[0]): block.generation for block in blocks_in(cluster, declared)}
    assert generations[1] == 0
    assert generations[2] == 1


def test_nothing_goes_while_the_callback_runs_or_after_it_failed(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    inside: list[str] = []

    def pull(generation: int) -> None:
        with pytest.raises(RolledBack):
            publisher.publish("users", [1], ones(1))
        worker = threading.Thread(target=publish_elsewhere)
        worker.start()
        worker.join(10)
        inside.append(f"pulled {generation}")
        if len(inside) < 3:
            raise OSError("no store answers")

    def publish_elsewhere() -> None:
        try:
            publisher.publish("users", [2], ones(1))
        except RolledBack:
            inside.append("refused")

    publisher = Publisher(name, cluster=memory, on_rollback=pull)
    roll_back(memory, publisher, 1)
    with pytest.raises(OSError, match="no store answers"):
        publisher.publish("users", [3], ones(1))
    with pytest.raises(RolledBack):
        publisher.publish("users", [4], ones(1))
    assert inside == ["refused", "pulled 1"] * 2
    publisher.publish("users", [5], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [5]


def test_without_a_callback_everything_is_refused_from_a_rollback_on(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    publisher = Publisher(name, cluster=memory)
    roll_back(memory, publisher, 1)
    for _ in range(3):
        with pytest.raises(RolledBack) as error:
            publisher.publish("users", [1], ones(1))
        assert "on_rollback" in error.value.hint
    with Publisher(name, cluster=memory) as fresh:
        fresh.publish("users", [1], ones(1))
        assert fresh.generation == 1


def test_a_rollback_drops_what_is_still_queued(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Stuck()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), on_rollback=lambda _: None)
    publisher.publish("users", [1], ones(1))
    roll_back(memory, publisher, 1)
    with pytest.raises(RolledBack):
        publisher.publish("users", [2], ones(1))
    faults.stuck = False
    publisher.publish("users", [3], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [3]


def test_saved_parameters_come_with_their_generation(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as first:
        roll_back(memory, first, 2)
    pulled: list[int] = []
    stale = Publisher(name, cluster=memory, generation=1, on_rollback=pulled.append)
    with pytest.raises(RolledBack):
        stale.publish("users", [1], ones(1))
    assert pulled == [2]
    assert Publisher(name, cluster=memory, generation=2).publish("users", [1], ones(1)).rows == 1
    with pytest.raises(ConfigurationError, match=r"generation 3 was given.*rolled back 2 time"):
        Publisher(name, cluster=memory, generation=3)


def test_the_control_record_of_an_earlier_model_of_this_name_counts_nothing(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    foreign = encode(Barrier(incarnation=10**6, epoch=5, generation=5, catalogue_end=0))
    for value in (foreign, b"garbage", None):
        memory.writer().send(Output(Partition(topics.control(name), 0), value, b"control"))
    with Publisher(name, cluster=memory) as publisher:
        assert publisher.generation == 0


# -- transactions and positions


def test_what_is_written_while_looking_for_a_position_is_a_valid_block(
    publisher: Publisher, cluster: Cluster, declared: str, model: ModelDeclaration
) -> None:
    publisher.last_position()
    (mark,) = blocks_in(cluster, declared)
    assert mark.deltas.shape == (0, model.table(mark.table).dim)
    assert mark.trainer_position is None


def test_deltas_and_position_are_in_the_log_together(cluster: Cluster, declared: str) -> None:
    with Publisher(declared, cluster=cluster, transactional_id="job") as publisher:
        assert publisher.trainer == "job"
        assert publisher.last_position() is None
        publisher.publish("users", np.arange(40), ones(40))
        assert rows_in(blocks_in(cluster, declared)) == {}, "a step is not in the log before its position"
        with pytest.raises(BadInput, match=r"40 row\(s\) in 4 block\(s\) wait for a position"):
            publisher.flush(1)
        publisher.publish("wide", [1], ones(1, 64), position=b"step 1")
        assert publisher.acknowledged.rows == 41
        publisher.publish("users", [1], np.zeros((1, 4)), position=b"")
        assert publisher.last_position() == b"", "an empty position is one"
    restarted = Publisher(declared, cluster=cluster, transactional_id="job")
    assert restarted.last_position() == b""
    restarted.publish("users", [1], ones(1), position=b"step 3")
    assert restarted.last_position() == b"step 3"
    restarted.close()
    assert rows_in([block for block in blocks_in(cluster, declared) if block.table == "users"]) == {
        **{key: [1] * 4 for key in range(40)},
        1: [2] * 4,
    }


def test_blocks_without_rows_are_proper_blocks_too(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as first:
        roll_back(memory, first, 3)
    with Publisher(name, cluster=memory, transactional_id="job", generation=1, on_rollback=lambda _: None) as publisher:
        publisher.last_position()
        with pytest.raises(RolledBack):
            publisher.publish("wide", [1], ones(1, 64))
        publisher.publish("wide", [1], np.zeros((1, 64)), position=b"1")
    mark, position = blocks_in(memory, name)
    assert (mark.table, mark.deltas.shape, mark.generation, mark.trainer_position) == ("users", (0, 4), 3, None)
    assert (position.table, position.deltas.shape, position.generation) == ("wide", (0, 64), 3)
    assert position.trainer_position == b"1"
    assert mark.shard == position.shard == position_shard("job", 4)


def test_positions_are_found_behind_many_others(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, transactional_id="rare") as rare:
        rare.publish("users", [1], ones(1), position=b"far back")
    with Publisher(name, cluster=memory, trainer="busy") as busy:
        for step in range(400):
            busy.publish("users", np.arange(20), ones(20), position=str(step).encode())
    assert Publisher(name, cluster=memory, transactional_id="rare").last_position() == b"far back"
    assert Publisher(name, cluster=memory, trainer="busy").last_position() == b"399"
    assert Publisher(name, cluster=memory, trainer="nobody").last_position() is None


def test_what_strangers_wrote_is_passed_over_when_a_position_is_looked_for(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    partition = Partition(topics.deltas(name), position_shard("t1", 4))
    with Publisher(name, cluster=memory, trainer="t1") as publisher:
        publisher.publish("users", [1], ones(1), position=b"1")
        publisher.flush(1)
        cut = encode(replace(Barrier(0, 1, 0, 0), epoch=3))[:-1]
        for value in (b"\x00\x01\x02\x03", None, cut, encode(Barrier(0, 1, 0, 0))):
            memory.writer().send(Output(partition, value))
        assert publisher.last_position() == b"1"


def test_a_position_that_retention_took_is_not_told_as_none(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, trainer="old") as old:
        old.publish("users", np.arange(20), ones(20), position=b"1")
        partition = Partition(topics.deltas(name), position_shard("old", 4))
        old.flush(1)
        memory.broker.trim(partition, memory.bounds([partition])[partition].end)
        with pytest.raises(GapError, match="what was before is gone"):
            old.last_position()


def test_a_second_trainer_of_an_identity_fences_the_first(cluster: Cluster, declared: str) -> None:
    first = Publisher(declared, cluster=cluster, transactional_id="job")
    first.publish("users", [1], ones(1), position=b"1")
    first.publish("users", [2], ones(1))
    second = Publisher(declared, cluster=cluster, transactional_id="job")
    assert second.last_position() == b"1"
    with pytest.raises(Fenced):
        first.publish("users", [3], ones(1), position=b"2")
    with pytest.raises(Fenced):
        first.publish("users", [3], ones(1), position=b"2")
    second.publish("users", [4], ones(1), position=b"2")
    second.close()
    first.close()
    assert sorted(rows_in(blocks_in(cluster, declared))) == [1, 4]


@pytest.mark.parametrize("fate", [Fate.REPLY_LOST, Fate.HANGING])
def test_a_commit_of_unknown_fate_is_cleared_up_by_the_next_publisher(
    memory_model: tuple[MemoryCluster, str], fate: Fate
) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), transactional_id="job")
    publisher.publish("users", [1], ones(1), position=b"1")
    faults.fates = [fate]
    with pytest.raises(PublishUncertain) as error:
        publisher.publish("users", [2], ones(1), position=b"2")
    assert "last_position()" in error.value.hint
    with pytest.raises(PublishUncertain):
        publisher.publish("users", [3], ones(1), position=b"3")
    publisher.close()
    with Publisher(name, cluster=memory, transactional_id="job") as second:
        if second.last_position() == b"1":
            second.publish("users", [2], ones(1), position=b"2")
    assert rows_in(blocks_in(memory, name)) == {1: [1] * 4, 2: [1] * 4}


def test_an_aborted_transaction_is_tried_again(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), transactional_id="job")
    faults.fates = [Fate.REFUSED, Fate.REFUSED]
    publisher.publish("users", [1], ones(1), position=b"1")
    publisher.close()
    assert rows_in(blocks_in(memory, name)) == {1: [1] * 4}


def test_what_waits_for_a_position_is_bounded(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    publisher = Publisher(name, cluster=memory, transactional_id="job", queue_bytes=10_000)
    publisher.publish("wide", np.arange(30), np.ones((30, 64)))
    with pytest.raises(QueueFull, match="a transaction holds 10000") as error:
        publisher.publish("wide", np.arange(30), np.ones((30, 64)))
    assert "position= more often" in error.value.hint
    publisher.publish("users", [1], ones(1), position=b"1")
    publisher.close()


# -- the end


def test_a_closed_publisher_says_so(publisher: Publisher) -> None:
    publisher.close()
    publisher.close()
    with pytest.raises(ConfigurationError, match="closed"):
        publisher.publish("users", [1], ones(1))


def test_an_error_in_the_with_block_is_not_hidden_by_the_closing(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model

    def fail() -> None:
        with Publisher(name, cluster=memory, transactional_id="job") as publisher:
            publisher.publish("users", [1], ones(1))
            raise KeyError("the trainer's own")

    with pytest.raises(KeyError, match="the trainer's own") as error:
        fail()
    assert "wait for a position" in error.value.__notes__[0]
