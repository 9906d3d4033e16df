"""Reads beside a writer at full speed: in threads and in other processes, now and as of a state; never a torn row."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, NotReady, StateUnavailable
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import ReplicaState
from ekko.storage.client import StoreClient
from ekko.storage.client.local_store import LocalStore
from ekko.storage.engine import applying
from ekko.storage.engine.index import Slots
from ekko.storage.engine.memory import Array
from ekko.storage.engine.scatter import scatter
from ekko.storage.store import Store
from tests.storage.reading_process import enough
from tests.storage.stores import DIM, MODEL, keys_of, open_store, opened, uniform_deltas
from tests.waiting import PATIENCE_S

ROWS = 5_000
WRITING_S = 2.0


def write_for(store: Store, seconds: float, epoch: int, enough: Callable[[], bool]) -> None:
    """Apply blocks with growing keys, late deltas and undos for a while, and until it is enough."""
    random = np.random.default_rng(1)
    blocks, end = 0, time.monotonic() + seconds
    while time.monotonic() < end or blocks <= 20 or not enough():
        assert time.monotonic() < end + PATIENCE_S
        keys = np.unique(random.integers(0, ROWS + blocks, 2000)).astype(np.uint64)
        store.apply("embedding", epoch, epoch - blocks % 2, keys, uniform_deltas(len(keys), blocks % 7 + 1))
        blocks += 1
        if blocks % 50 == 0:
            store.undo(EpochRange(epoch, epoch))
            epoch += 1


def test_a_read_that_meets_a_row_half_written_waits_for_the_other_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 1, 1, keys_of(1, 2), uniform_deltas(2))
        found = []
        reader = threading.Thread(target=lambda: found.append(store.lookup("embedding", keys_of(1, 2))[0]))

        def in_two_halves(rows: Int32s, slots: Slots, values: Int32s) -> None:
            rows[slots, : DIM // 2] = values[:, : DIM // 2]
            reader.start()
            reader.join(0.2)
            scatter(rows, slots, values)

        monkeypatch.setattr(applying, "scatter", in_two_halves)
        store.apply("embedding", 1, 1, keys_of(1, 2), uniform_deltas(2))
        reader.join(120)
        assert (found[0] == 2).all()


def fill(store: Store) -> None:
    store.apply("embedding", 1, 1, np.arange(ROWS, dtype=np.uint64), uniform_deltas(ROWS, 3))
    store.publish(store.state, serving=True)


def test_threads_never_see_half_a_row_nor_a_past_that_changes(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        fill(store)
        stop = threading.Event()
        torn: list[int] = []

        def read(as_of: int | None) -> None:
            random = np.random.default_rng(as_of)
            while not stop.is_set():
                keys = random.integers(0, ROWS, 500).astype(np.uint64)
                rows, found = store.lookup("embedding", keys, as_of)
                expected = rows[:, :1] if as_of is None else 3
                torn.append(int((rows != expected).sum()) + int((~found).sum()))

        readers = [threading.Thread(target=read, args=(as_of,)) for as_of in (None, None, 2)]
        for reader in readers:
            reader.start()
        write_for(store, WRITING_S, 4, lambda: len(torn) > 20)
        stop.set()
        for reader in readers:
            reader.join()
        assert len(torn) > 20
        assert sum(torn) == 0


class Interrupted:
    """An array; the first time that `place` is taken from it, something else happens before."""

    def __init__(self, array: Array, place: int, meanwhile: Callable[[], None]) -> None:
        self._array, self._place, self._meanwhile = array, place, meanwhile

    def take(self, places: Array) -> Array:
        if self._place in places:
            self._place = -1
            self._meanwhile()
        return self._array.take(places)


def test_an_entry_that_became_another_keys_while_it_was_looked_at_is_not_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        for epoch in (3, 8):
            store.apply("embedding", epoch, epoch, keys_of(1), uniform_deltas(1, 10**epoch))
        table = store._tables["embedding"]
        oldest = int(table.pool.select(3, 3)[0])

        def give_it_to_another_key() -> None:
            """Between the look at its owner and the one at its label."""
            store.raise_bound(5)
            store.apply("embedding", 9, 7, keys_of(2), uniform_deltas(1))
            assert table.pool.slots[oldest] == table.index.find(keys_of(2))[0] + 1

        labels = Interrupted(table.pool.labels, oldest, give_it_to_another_key)
        table.reader._pool.labels = labels  # type: ignore[assignment]
        assert store.lookup("embedding", keys_of(1), 6)[0][0, 0] == 1_000


def test_processes_never_see_half_a_row_nor_a_past_that_changes(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        fill(store)
        store.publish(_complete(store, 2), serving=True)
        readers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.storage.reading_process", str(tmp_path), str(ROWS), *as_of],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for as_of in ([], ["2"])
        ]
        outcomes = []
        try:
            for reader in readers:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "reading\n"
            write_for(store, WRITING_S, 4, lambda: all(enough(tmp_path, reader.pid).exists() for reader in readers))
            for reader in readers:
                output, _ = reader.communicate(timeout=180)
                outcomes.append([int(number) for number in output.split()])
        finally:
            for reader in readers:
                reader.kill()
                reader.communicate()
        for read, torn, changed in outcomes:
            assert read > 1000
            assert torn == 0
            assert changed == 0


def _complete(store: Store, state: int) -> ReplicaState:
    positions = {shard: replace(position, complete=state) for shard, position in store.state.shards.items()}
    return replace(store.state, shards=positions)


def test_a_local_reader_gets_what_the_store_holds_and_its_version_vector(tmp_path: Path) -> None:
    with opened(tmp_path / "replica" / "store") as store:
        store.apply("embedding", 0, 0, keys_of(1, 2), uniform_deltas(2, 5))
        local = LocalStore(tmp_path, "ctr")
        with pytest.raises(NotReady):
            local.lookup("embedding", keys_of(1))
        store.publish(store.state, serving=True)
        reply = local.lookup("embedding", keys_of(1, 3))
        assert reply.rows[:, 0].tolist() == [5, 0]
        assert reply.found.tolist() == [True, False]
        with pytest.raises(ConfigurationError):
            local.lookup("nothing", keys_of(1))
        with pytest.raises(StateUnavailable):
            local.lookup("embedding", keys_of(1), as_of=1)
        local.close()


def test_a_local_reader_hears_of_bounds_and_withdrawn_states(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        fill(store)
        store.publish(_complete(store, 9), serving=True)
        local = LocalStore(tmp_path, "ctr")
        assert local.lookup("embedding", keys_of(1), as_of=1).rows[0, 0] == 0
        store.raise_bound(2)
        store.withdraw([EpochRange(4, 5)])
        for state in (1, 4, 5):
            with pytest.raises(StateUnavailable):
                local.lookup("embedding", keys_of(1), as_of=state)
        assert local.lookup("embedding", keys_of(1), as_of=6).rows[0, 0] == 3
        local.close()


def test_a_local_reader_finds_the_store_again_after_a_restart_and_a_new_table(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    fill(store)
    local = LocalStore(tmp_path, "ctr")
    assert local.lookup("embedding", keys_of(1)).rows[0, 0] == 3
    store.flush(store.state)
    store.close()
    with pytest.raises((ConnectionFailed, NotReady)):
        local.lookup("embedding", keys_of(1))
    with opened(tmp_path / "store") as again:
        again.publish(again.state, serving=True)
        assert local.lookup("embedding", keys_of(1)).rows[0, 0] == 3
        again.add_table(TableDeclaration("bias", 1))
        again.apply("bias", 1, 1, keys_of(8), uniform_deltas(1, 9, dim=1))
        assert local.lookup("bias", keys_of(8)).rows.tolist() == [[9]]
        assert local.model == replace(MODEL, tables=(*MODEL.tables, TableDeclaration("bias", 1)))
    local.close()


def test_a_local_reader_finds_a_table_that_the_catalogue_told_of_late(tmp_path: Path) -> None:
    bias = TableDeclaration("bias", 1)
    with opened(tmp_path / "store") as store:
        store.add_table(bias)
        store.apply("bias", 1, 1, keys_of(8), uniform_deltas(1, 9, dim=1))
        store.flush(store.state)
    with opened(tmp_path / "store") as again:  # with the catalogue as of before
        again.add_table(bias)
        again.publish(again.state, serving=True)
        local = LocalStore(tmp_path, "ctr")
        assert local.lookup("bias", keys_of(8)).rows.tolist() == [[9]]
        local.close()


def test_without_a_store_the_error_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no store of model ctr"):
        LocalStore(tmp_path, "ctr").lookup("embedding", keys_of(1))


def test_a_client_in_the_serving_process_reads_through_shared_memory(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, StoreClient("east", "ctr", stores=[f"local://{tmp_path}"]) as client:
        store.apply("embedding", 0, 0, keys_of(1), uniform_deltas(1, 1 << 24))
        with pytest.raises(NotReady):
            client.lookup("embedding", [1])
        store.publish(store.state, serving=True)
        rows = client.lookup("embedding", [1, 2])
        assert rows.values[:, 0].tolist() == [1.0, 0.0]
        assert rows.found.tolist() == [True, False]
        assert rows.state == store.state
    with StoreClient("east", "ctr", stores=[f"local://{tmp_path}"]) as client, pytest.raises(ConnectionFailed):
        client.lookup("embedding", [1])
