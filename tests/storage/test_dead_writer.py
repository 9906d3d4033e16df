"""Readers whose store has died in the middle of a write, has ended, or cannot be reached: an error in time, no leak."""

import gc
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, NotReady
from ekko.storage.client import StoreClient
from ekko.storage.client.local_store import LocalStore
from ekko.storage.engine.memory import Array
from ekko.storage.shared.reader_handle import started_at, write_handle
from ekko.storage.store import Store
from tests.storage.replica_double import ReplicaDouble, serving
from tests.storage.stores import keys_of, opened, uniform_deltas


def serving_one_row(store: Store) -> None:
    store.apply("embedding", 0, 0, keys_of(1), uniform_deltas(1))
    store.publish(store.state, serving=True)


HALVES: dict[str, Callable[[Store], Array]] = {
    "a row": lambda store: store._tables["embedding"].arena.versions,
    "a page of the index": lambda store: store._tables["embedding"].index._versions,
    "version vector": lambda store: store._sharing._board._header[:1],
}


@pytest.mark.parametrize("what", HALVES)
def test_what_a_dead_store_left_half_written_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("ekko.storage.engine.patience._PATIENCE_S", 0.2)
    with opened(tmp_path / "store") as store:
        serving_one_row(store)
        local = LocalStore(tmp_path, "ctr")
        assert local.lookup("embedding", keys_of(1, 2)).found.tolist() == [True, False]
        versions = HALVES[what](store)
        versions[:4] += 1
        with pytest.raises(NotReady, match=what):
            local.lookup("embedding", keys_of(1, 2))
        versions[:4] += 1
        assert local.lookup("embedding", keys_of(1, 2)).found.tolist() == [True, False]
        local.close()


def process_handles() -> int:
    """Descriptors of this process that watch another one."""
    gc.collect()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).endswith("[pidfd]") for link in links if os.path.lexists(link))


def test_a_store_whose_memory_is_out_of_reach_costs_no_file_a_lookup(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        write_handle(tmp_path / "store", replace(store.reader_handle(), board=9_999))
        local = LocalStore(tmp_path, "ctr")
        before = process_handles()
        for _ in range(20):
            with pytest.raises(ConfigurationError, match="cannot attach"):
                local.lookup("embedding", keys_of(1))
        assert process_handles() <= before + 1, "the last error may still be at hand"


def test_another_process_with_the_id_of_the_one_that_ended_is_not_taken_for_it(tmp_path: Path) -> None:
    assert started_at(os.getpid()) is not None
    assert started_at(os.getpid()) != started_at(1)
    with opened(tmp_path / "store") as store:
        serving_one_row(store)
        handle = store.reader_handle()
        assert handle.started is not None
        write_handle(tmp_path / "store", replace(handle, started=handle.started - 1))
        with pytest.raises(ConnectionFailed, match="has ended"):
            LocalStore(tmp_path, "ctr").lookup("embedding", keys_of(1))


def test_a_store_that_cannot_leave_its_handle_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path / "store") as store:
        (tmp_path / "store" / "reader.json.new").mkdir()  # as on a full disk
        store.add_table(TableDeclaration("bias", 1))
        assert store.apply("bias", 0, 0, keys_of(1), uniform_deltas(1, dim=1)) == 1
    assert "readers on this machine" in caplog.text


def test_a_local_store_that_is_away_is_not_looked_for_at_every_lookup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[float] = []

    def find(data: Path, model: str) -> None:
        looked.append(time.monotonic())
        raise ConfigurationError(f"no store of model {model} has left a handle under {data}")

    monkeypatch.setattr("ekko.storage.client.local_store.find_handle", find)
    monkeypatch.setattr("ekko.storage.client.client.COOL_OFF_S", 60.0)
    with serving(ReplicaDouble()) as address:
        with StoreClient("east", "ctr", stores=[f"local://{tmp_path}", address]) as client:
            for _ in range(5):
                np.testing.assert_array_equal(client.lookup("embedding", [1]).found, [True])
        assert len(looked) == 1
    with StoreClient("east", "ctr", stores=[f"local://{tmp_path}"]) as client:
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                client.lookup("embedding", [1])
    assert len(looked) == 3, "where there is no other store, it is looked for"


def test_asking_for_members_does_not_outlast_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.storage.client.replicas._REFRESH_TIMEOUT_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        host, port = hanging.getsockname()
        with StoreClient("east", "ctr", stores=[f"{host}:{port}"], timeout_s=0.2) as client:
            begun = time.monotonic()
            with pytest.raises(ConnectionFailed):
                client.declaration()
            assert time.monotonic() - begun < 30.0
