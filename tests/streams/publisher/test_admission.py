"""Admission of keys: published from the n-th touch on, never later, seldom earlier; and what a restart means."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError, PublishUncertain
from ekko.schemas.hashing import UInt64s
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Fate
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Admission, Publisher
from ekko.streams.publisher.admission import TouchCounts
from ekko.streams.publisher.batches import Flags
from tests.simulation.truth import Truth
from tests.streams.publisher.source_log import Uncertain

TABLE = TableDeclaration("embedding", 3, admission=3)
MODEL = ModelDeclaration("ctr", shards=3, tables=(TABLE, TableDeclaration("bias", 1)))


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(lambda: 1.0, decide=lambda: True)
    declare_model(made, MODEL)
    return made


def declare_model(broker: MemoryBroker, model: ModelDeclaration) -> None:
    cluster = MemoryCluster(broker)
    declare(cluster, Declarations((), (model,)), lambda _: cluster)


def touch(publisher: Publisher, *keys: int) -> tuple[int, int]:
    receipt = publisher.publish("embedding", np.array(keys, np.uint64), np.ones((len(keys), 3), np.float32))
    publisher.flush(120)
    return receipt.rows, receipt.not_admitted


def published(broker: MemoryBroker) -> dict[int, list[bool]]:
    """By key, the created flags of its deltas in the log."""
    found: dict[int, list[bool]] = {}
    for entry in Truth(broker, "ctr").accepted:
        flags = entry.block.created
        for place, key in enumerate(entry.block.keys.tolist()):
            found.setdefault(key, []).append(flags is not None and bool(flags[place]))
    return found


def test_a_key_is_published_from_its_third_touch_on_and_created_then(broker: MemoryBroker) -> None:
    with Publisher("ctr", cluster=MemoryCluster(broker), trainer="t") as publisher:
        assert touch(publisher, 1, 2, 2) == (0, 2)
        assert touch(publisher, 1, 3) == (0, 2)
        assert touch(publisher, 1, 2) == (1, 1)
        assert touch(publisher, 1) == (1, 0)
        assert touch(publisher, 2) == (1, 0)
        assert publisher.publish("bias", [7], [[1.0]]).rows == 1, "tables without it let every key in"
    assert published(broker) == {1: [True, False], 2: [True], 7: [False]}


def test_a_publish_that_fails_is_no_touch(broker: MemoryBroker) -> None:
    """Else its repetition is the next one, and the row that it lets in is not flagged as created any more."""
    faults = Uncertain()
    with Publisher("ctr", cluster=MemoryCluster(broker, faults), trainer="t") as publisher:
        for expected in ((0, 1), (0, 1), (1, 0)):
            faults.fates = [Fate.REFUSED]
            publisher.publish("bias", [7], [[1.0]])
            with pytest.raises(PublishUncertain):
                publisher.publish("embedding", [1], [[1.0, 1.0, 1.0]])
            assert touch(publisher, 1) == expected
    assert published(broker)[1] == [True]


def test_touches_at_the_same_time_let_a_key_in_with_the_next_one() -> None:
    """Two threads' first touches of two: neither could know of the other, and the row is still to be created."""
    counts, key = TouchCounts.empty(1 << 12), np.array([7], np.uint64)
    let_in, _ = counts.look(key, 2)
    again, _ = counts.look(key, 2)
    counts.count(key, let_in, 2)
    counts.count(key, again, 2)
    assert not let_in.any()
    assert not again.any()
    assert [flags.tolist() for flags in counts.look(key, 2)] == [[True], [True]]


def test_positions_are_in_the_log_whoever_is_let_in(broker: MemoryBroker) -> None:
    with Publisher("ctr", cluster=MemoryCluster(broker), transactional_id="t") as publisher:
        receipt = publisher.publish("embedding", [1], [[1.0, 1.0, 1.0]], position=b"one")
        assert (receipt.rows, receipt.not_admitted) == (0, 1)
        assert publisher.last_position() == b"one"


def test_a_restarted_trainer_goes_on_with_saved_touches_and_begins_anew_without(
    broker: MemoryBroker, tmp_path: Path
) -> None:
    admission = Admission(1 << 16)
    with Publisher("ctr", cluster=MemoryCluster(broker), trainer="t", admission=admission) as publisher:
        touch(publisher, 1, 2)
        touch(publisher, 1, 2)
        touch(publisher, 1)
    admission.save(tmp_path / "touches")
    assert [path.name for path in tmp_path.iterdir()] == ["touches"]
    loaded = Admission.load(tmp_path / "touches")
    with Publisher("ctr", cluster=MemoryCluster(broker), trainer="t", admission=loaded) as publisher:
        assert touch(publisher, 1, 2, 3) == (2, 1)
    with Publisher("ctr", cluster=MemoryCluster(broker), trainer="t") as publisher:
        assert touch(publisher, 1) == (0, 1)


def test_a_declaration_that_changes_counts_at_once_and_what_is_admitted_stays_so(broker: MemoryBroker) -> None:
    with Publisher("ctr", cluster=MemoryCluster(broker), trainer="t") as publisher:
        for _ in range(3):
            touch(publisher, 1)
        declare_model(broker, replace(MODEL, tables=(replace(TABLE, admission=5),)))
        assert touch(publisher, 1, 2) == (1, 1)
        declare_model(broker, replace(MODEL, tables=(replace(TABLE, admission=1),)))
        assert touch(publisher, 1, 2, 3) == (3, 0)


def one_touch(counts: TouchCounts, keys: UInt64s, needed: int) -> tuple[Flags, Flags]:
    """What one touch of each key comes to."""
    let_in, just_now = counts.look(keys, needed)
    counts.count(keys, let_in, needed)
    return let_in, just_now


def some_keys(count: int, seed: int) -> UInt64s:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("needed", [2, 4, 255])
def test_never_too_late_and_seldom_too_early(needed: int) -> None:
    """At the stated load: half as many keys as cells of a row."""
    counts = TouchCounts.empty(1 << 16)
    keys = np.unique(some_keys(8_000, 1))
    early = 0
    for turn in range(1, needed + 1):
        admitted, just_now = one_touch(counts, keys, needed)
        if turn < needed:
            early = max(early, int(admitted.sum()))
    assert admitted.all()
    assert just_now.sum() >= len(keys) - early
    assert early <= 0.024 * len(keys)
    assert not one_touch(counts, keys, needed)[1].any()


def test_touches_of_keys_that_never_come_again_are_forgotten_and_admitted_keys_are_not() -> None:
    counts = TouchCounts.empty(1 << 14)  # 4,096 cells a row
    regulars = np.unique(some_keys(500, 1))
    for _ in range(3):
        one_touch(counts, regulars, 3)
    early = total = 0
    for seed in range(2, 400):
        strangers = np.unique(some_keys(300, seed))
        early += int(one_touch(counts, strangers, 3)[0].sum())
        total += len(strangers)
        assert one_touch(counts, regulars, 3)[0].all()
    assert total > 100_000
    assert early < 0.03 * total


def test_counts_are_never_too_low() -> None:
    counts = TouchCounts.empty(1 << 13)
    keys = np.unique(some_keys(900, 3))  # too few to be forgotten, and many share cells
    touched = np.zeros(len(keys), np.int64)
    rng = np.random.default_rng(4)
    for _ in range(50):
        some = np.flatnonzero(rng.random(len(keys)) < 0.3)
        touched[some] += 1
        one_touch(counts, keys[some], 200)
        rows = zip(counts.cells, counts._places(keys), strict=True)
        assert (np.minimum.reduce([row.take(at) for row, at in rows]) >= touched).all()


def test_what_cannot_be_counted_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="too few"):
        Admission(100)
    with pytest.raises(ConfigurationError, match=r"is not in 1\.\.255"):
        replace(TABLE, admission=256)
    for content in (b"", b"rubbish"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ConfigurationError, match="holds no touches"):
            Admission.load(tmp_path / "bad")
    np.savez(tmp_path / "other.npz", embedding=np.zeros((3, 8), np.uint8))
    with pytest.raises(ConfigurationError, match="holds no touches"):
        Admission.load(tmp_path / "other.npz")
    with pytest.raises(ConfigurationError, match="holds no touches"):
        Admission.load(tmp_path / "nowhere")
