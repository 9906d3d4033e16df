"""The client against real servers: values, failover, replicas that hold only some shards, dead and hanging stores."""

import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ekko.schemas.errors import BadInput, ConfigurationError, ConnectionFailed, NotReady, StateUnavailable
from ekko.schemas.hashing import shard_of
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import to_float
from ekko.storage.client import StoreClient
from ekko.storage.serving.served import MAX_LOOKUP_KEYS
from tests.storage.replica_double import TABLES, ReplicaDouble, serving

EMBEDDING, BIAS = TABLES
DEAD = "127.0.0.1:1"
PATIENT_S = 60.0
"""Longer than any machine keeps a store waiting that answers at all."""


def client_of(*stores: str) -> StoreClient:
    return StoreClient("east", "ctr", stores=stores, timeout_s=PATIENT_S)


def expected(keys: np.ndarray) -> np.ndarray:
    rows = (keys[:, None].astype(np.int64) + np.arange(3)).astype(np.int32)
    rows[~np.isin(keys, range(1, 9))] = 0
    return to_float(rows + initial_rows(EMBEDDING, keys), 24)


def test_values_are_initialiser_plus_row_and_absent_keys_are_told() -> None:
    replica = ReplicaDouble()
    keys = np.array([8, 2**64 - 1, 1, 8], np.uint64)
    with serving(replica) as address, client_of(address) as client:
        rows = client.lookup("embedding", keys)
        bias = client.lookup("bias", [1, 77])
    assert rows.found.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(np.asarray(rows), expected(keys))
    assert rows.values.dtype == np.float32
    assert rows.state == replica.state
    assert np.asarray(bias, dtype=np.float64).tolist() == [[2.0**-16], [0.0]]
    assert len(bias) == 2


def test_no_keys_and_more_keys_than_one_request_may_carry() -> None:
    replica = ReplicaDouble()
    keys = np.arange(MAX_LOOKUP_KEYS + 10, dtype=np.uint64)[::-1].copy()
    with serving(replica) as address, client_of(address) as client:
        assert client.lookup("embedding", []).values.shape == (0, 3)
        np.testing.assert_array_equal(client.lookup("embedding", keys).values, expected(keys))
        assert client.state() == replica.state
    assert replica.asked[1:3] == [MAX_LOOKUP_KEYS, 10]


def test_the_state_of_a_store_that_is_not_ready_is_an_error_of_ours() -> None:
    replica = ReplicaDouble()
    replica.is_ready = False
    with serving(replica) as address, client_of(address) as client:
        client.declaration()
        with pytest.raises(NotReady):
            client.state()


@pytest.mark.parametrize("keys", [[-1], [1.5], [[1]], ["a"], 3])
def test_keys_that_would_become_others_are_refused(keys: object) -> None:
    client = StoreClient("east", "ctr", stores=[DEAD])
    with pytest.raises(BadInput, match="key"):
        client.lookup("embedding", keys)  # type: ignore[arg-type]


def test_unknown_names_are_told_and_not_retried() -> None:
    with serving(ReplicaDouble()) as address:
        with (
            client_of(address) as client,
            pytest.raises(ConfigurationError) as caught,
        ):
            client.lookup("nope", [1])
        assert "embedding, bias" in caught.value.hint
        with (
            StoreClient("east", "nope", stores=[address]) as client,
            pytest.raises(ConfigurationError, match="nope"),
        ):
            client.lookup("embedding", [1])
    with pytest.raises(ConfigurationError, match="no stores"):
        StoreClient("east", "ctr", stores="127.0.0.1:7070")


def test_a_dead_and_a_starting_store_are_passed_over() -> None:
    starting, good = ReplicaDouble(), ReplicaDouble()
    starting.is_ready = False
    keys = np.array([1, 2], np.uint64)
    with serving(starting) as first, serving(good) as second:
        with client_of(DEAD, first, second) as client:
            for _ in range(3):
                np.testing.assert_array_equal(client.lookup("embedding", keys).values, expected(keys))
        with (
            client_of(first) as client,
            pytest.raises(NotReady, match="still reading"),
        ):
            client.lookup("embedding", keys)


def test_a_hanging_store_leaves_time_for_another_and_is_asked_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.storage.client.directory.COOL_OFF_S", 120.0)
    hanging, good = ReplicaDouble(), ReplicaDouble()
    hanging.hang.clear()
    keys = np.array([1, 2], np.uint64)
    with serving(hanging) as first, serving(good) as second:
        with StoreClient("east", "ctr", stores=[first, second], timeout_s=12.0) as client:
            begun = time.monotonic()
            np.testing.assert_array_equal(client.lookup("embedding", keys).values, expected(keys))
            assert time.monotonic() - begun < 12.0
            assert hanging.begun == 1
            took_s = []
            for _ in range(2):  # a busy machine may make one of them slow
                begun = time.monotonic()
                client.lookup("embedding", keys)
                took_s.append(time.monotonic() - begun)
            assert min(took_s) < 4.0, "it would have had half of the time"
        hanging.hang.set()


def test_a_restarted_store_is_found_again() -> None:
    replica = ReplicaDouble()
    with serving(replica) as address:
        client = client_of(address)
        client.lookup("embedding", [1])
    with pytest.raises(ConnectionFailed, match=address):
        client.lookup("embedding", [1])
    with serving(replica, int(address.rpartition(":")[2])):
        assert client.lookup("embedding", [1]).found.all()
    client.close()


@pytest.mark.parametrize("address", ["nonsense", "host:", ":7070", "host:port"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    with (
        client_of(address) as client,
        pytest.raises(ConfigurationError, match=address),
    ):
        client.lookup("embedding", [1])


def test_what_answers_but_is_no_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        def answer() -> None:
            for reply in (b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncut short"):
                connection, _ = server.accept()
                connection.sendall(reply)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            StoreClient("east", "ctr", stores=[f"{host}:{port}"], timeout_s=10.0) as client,
            pytest.raises(ConnectionFailed) as caught,
        ):
            client.declaration()
        assert f"store {host}:{port} did not answer" in caught.value.message
        thread.join(120)


def test_threads_share_a_client() -> None:
    keys = np.arange(500, dtype=np.uint64)
    with (
        serving(ReplicaDouble()) as address,
        client_of(address) as client,
        ThreadPoolExecutor(24) as pool,
    ):
        answers = list(pool.map(lambda start: client.lookup("embedding", keys[start:]).values, range(200)))
    for start, values in enumerate(answers):
        np.testing.assert_array_equal(values, expected(keys[start:]))


def test_members_are_followed_and_keys_go_to_whom_they_belong() -> None:
    low, high = ReplicaDouble(shards=(0, 1)), ReplicaDouble(shards=(2, 3))
    keys = np.arange(40, dtype=np.uint64)
    with serving(low) as first, serving(high) as second:
        low.region_members = high.region_members = [low.member(first), high.member(second)]
        with client_of(first) as client:
            rows = client.lookup("embedding", keys)
    np.testing.assert_array_equal(rows.values, expected(keys))
    assert sorted(rows.state.shards) == [0, 1, 2, 3]
    shards = shard_of(keys, 4)
    assert (low.asked, high.asked) == ([int((shards < 2).sum())], [int((shards >= 2).sum())])


def test_a_shard_that_nobody_holds_is_named() -> None:
    low = ReplicaDouble(shards=(0, 1))
    keys = np.arange(40, dtype=np.uint64)
    with serving(low) as first:
        low.region_members = [low.member(first)]
        with (
            client_of(first) as client,
            pytest.raises(NotReady, match=r"shard\(s\) \[[23]\]"),
        ):
            client.lookup("embedding", keys)


def test_one_half_lost_is_taken_over_by_the_replica_that_holds_all() -> None:
    low, high, whole = ReplicaDouble(shards=(0, 1)), ReplicaDouble(shards=(2, 3)), ReplicaDouble()
    keys = np.arange(40, dtype=np.uint64)
    with serving(low) as first, serving(whole) as third:
        with serving(high) as second:
            members = [low.member(first), high.member(second), whole.member(third)]
            for replica in (low, high, whole):
                replica.region_members = members
            client = client_of(first)
            client.lookup("embedding", keys)
        np.testing.assert_array_equal(client.lookup("embedding", keys).values, expected(keys))
        client.close()


def test_a_state_that_one_replica_lacks_is_asked_of_another() -> None:
    with serving(ReplicaDouble()) as first, client_of(first) as client:
        assert client.lookup("bias", [2], as_of=3).values.tolist() == [[6 * 2.0**-16]]
        with pytest.raises(StateUnavailable, match="not complete at 6 yet"):
            client.lookup("bias", [2], as_of=6)


def test_checksums_latencies_and_reports() -> None:
    replica = ReplicaDouble()
    with serving(replica) as address, client_of(address) as client:
        assert client.checksum("bias", as_of=1).checksum == 2**63 + 1
        assert client.latency().express.p99 == 1.5
        client.report("requests", 120, count=120, cohort="baseline")
    assert [(signal.metric, signal.value, signal.cohort) for signal in replica.signals] == [
        ("requests", 120.0, "baseline")
    ]


def test_a_serving_process_loads_neither_kafka_nor_faust_nor_rocksdb() -> None:
    heavy = "('confluent_kafka', 'faust', 'rocksdict')"
    code = f"import ekko.storage.client, sys; print([module for module in {heavy} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "[]"
