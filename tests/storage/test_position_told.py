"""The position that comes with a row: the row holds all that was applied up to it, before, during and after flushes."""

import threading
from dataclasses import replace
from pathlib import Path

from ekko.schemas.codec import Codec
from ekko.schemas.replicas import ReplicaState
from ekko.storage.client.local_store import LocalStore
from ekko.storage.store import Store
from tests.storage.stores import keys_of, opened, uniform_deltas

SHARDS = (0, 1)


def at(store: Store, position: int) -> ReplicaState:
    return replace(store.state, shards={s: replace(store.state.shards[s], contiguous=position) for s in SHARDS})


def look(local: LocalStore) -> tuple[int, int]:
    """The value of key 1, and the position told with it."""
    reply = local.lookup("embedding", keys_of(1))
    state = Codec().decode(reply.states[0])
    assert isinstance(state, ReplicaState)
    return int(reply.rows[0, 0]), state.shards[0].contiguous


def test_a_row_is_never_older_than_the_position_told_with_it(tmp_path: Path) -> None:
    """Case 27: put v1, flush, put v2, flush, get: v2 and its position, a hundred times, with a reader beside it."""
    with opened(tmp_path / "replica" / "store") as store:
        store.publish(at(store, 0), serving=True)
        done = threading.Event()
        seen: list[tuple[int, int]] = []

        def read() -> None:
            local = LocalStore(tmp_path, "ctr")
            while not done.is_set():
                seen.append(look(local))
            local.close()

        reader = threading.Thread(target=read)
        reader.start()
        local = LocalStore(tmp_path, "ctr")
        try:
            position = 0
            while position < 100 or len(seen) <= 100:
                position += 1
                store.apply("embedding", position // 30, position // 30, keys_of(1), uniform_deltas(1))
                store.publish(at(store, position), serving=True)
                assert look(local) == (position, position)
                store.flush(at(store, position))
                assert look(local) == (position, position)
        finally:
            done.set()
            reader.join()
            local.close()
        assert all(value >= position for value, position in seen), "older than told"
        assert seen == sorted(seen), "it went back"
    with opened(tmp_path / "replica" / "store") as store:
        assert store.state.shards[0].contiguous == position
        assert (store.lookup("embedding", keys_of(1))[0] == position).all()
