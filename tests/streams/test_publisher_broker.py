"""The publisher when the broker dies, stands still, or does not let it in: nothing hangs, nothing is silently lost."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import CatalogueConflict, ConnectionFailed, PublishUncertain, QueueFull, TransactionAborted
from ekko.streams.declaring import declare
from ekko.streams.declaring_plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher

DIM = 16
STEP = 2.0**-24
MODEL = ModelDeclaration("ctr", shards=4, tables=(TableDeclaration("users", dim=DIM),))


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test alone, which it may kill."""
    with Broker(tmp_path / "broker") as broker:
        with closing(KafkaCluster(broker.bootstrap)) as cluster:
            declare(cluster, Declarations(models=(MODEL,)), lambda region: pytest.fail(str(region)))
        yield broker


def ones(count: int) -> np.ndarray:
    return np.full((count, DIM), STEP)


def counts_in(bootstrap: str) -> np.ndarray:
    """How often each key 0..99 was counted up, by the raw log."""
    codec, counts = Codec(), np.zeros(100, int)
    with closing(KafkaCluster(bootstrap)) as cluster:
        for record in read_all(cluster, topics.deltas("ctr"), timeout_s=60):
            message = codec.decode(record.value)
            assert isinstance(message, DeltaBlock)
            assert (message.deltas == message.deltas[:, :1]).all()
            np.add.at(counts, message.keys.astype(int), message.deltas[:, 0])
    return counts


def test_a_broker_killed_twice_under_load_loses_and_repeats_nothing(own_broker: Broker) -> None:
    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap, queue_bytes=4_000_000)) as publisher:
        stop = threading.Event()
        published = [0]

        def train() -> None:
            while not stop.is_set():
                publisher.publish("users", np.arange(100), ones(100), timeout_s=60)
                published[0] += 1

        trainer = threading.Thread(target=train)
        trainer.start()
        for _ in range(2):
            time.sleep(0.7)
            own_broker.kill()
            time.sleep(0.3)
            own_broker.start()
        time.sleep(0.5)
        stop.set()
        trainer.join(60)
        publisher.flush(60)
        assert published[0] > 50
        assert publisher.acknowledged.rows == 100 * published[0]
    assert counts_in(own_broker.bootstrap).tolist() == [published[0]] * 100


def test_with_the_broker_away_the_queue_fills_is_told_and_goes_out_later(own_broker: Broker) -> None:
    with Publisher("ctr", bootstrap=own_broker.bootstrap, queue_bytes=100_000) as publisher:
        publisher.publish("users", np.arange(100), ones(100))
        publisher.flush(20)
        own_broker.kill()
        accepted, started = 1, time.monotonic()
        try:
            while accepted < 1_000:
                publisher.publish("users", np.arange(100), ones(100), timeout_s=0.5)
                accepted += 1
        except QueueFull as error:
            assert "nothing was enqueued" in error.message  # noqa: PT017 - the count at this moment is what matters
        assert 10 < accepted < 1_000
        assert time.monotonic() - started < 20
        with pytest.raises(PublishUncertain, match="still being sent"):
            publisher.flush(0.3)
        own_broker.start()
        publisher.flush(60)
        assert publisher.acknowledged.rows == 100 * accepted
    assert counts_in(own_broker.bootstrap).tolist() == [accepted] * 100


def test_closing_with_the_broker_away_ends_in_time_and_tells(own_broker: Broker) -> None:
    publisher = Publisher("ctr", bootstrap=own_broker.bootstrap)
    publisher.publish("users", np.arange(100), ones(100))
    publisher.flush(20)
    own_broker.kill()
    publisher.publish("users", np.arange(100), ones(100))
    started = time.monotonic()
    with pytest.raises(PublishUncertain, match="the publisher is closed"):
        publisher.close(timeout_s=1.0)
    assert time.monotonic() - started < 10
    own_broker.start()
    assert set(counts_in(own_broker.bootstrap).tolist()) <= {1, 2}


def test_what_is_not_delivered_in_time_is_of_unknown_fate_and_the_next_batches_go(own_broker: Broker) -> None:
    impatient = KafkaCluster(own_broker.bootstrap, {"delivery.timeout.ms": "1500"})
    with closing(impatient), closing(Publisher("ctr", cluster=impatient)) as publisher:
        publisher.publish("users", np.arange(100), ones(100))
        publisher.flush(20)
        own_broker.kill()
        publisher.publish("users", np.arange(100), ones(100))
        with pytest.raises(PublishUncertain, match=r"100 row\(s\) in 4 block\(s\)"):
            publisher.flush(20)
        own_broker.start()
        for _ in range(5):
            publisher.publish("users", np.arange(100), ones(100))
            time.sleep(0.1)
        publisher.flush(20)
        assert publisher.acknowledged.rows == 600
    counts = counts_in(own_broker.bootstrap).tolist()
    assert set(counts) <= {6, 7}, "six batches are acknowledged; the seventh is there at most once"


def test_a_limit_that_was_lowered_meanwhile_is_told(own_broker: Broker) -> None:
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # noqa: PLC0415

    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap)) as publisher:
        admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
        lower = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(ResourceType.TOPIC, topics.deltas("ctr"), incremental_configs=[lower])
        admin.incremental_alter_configs([topic])[topic].result(10)
        rng = np.random.default_rng(0)
        publisher.publish("users", np.arange(1_000), rng.normal(size=(1_000, DIM)))
        with pytest.raises(TransactionAborted, match=r"1000 row\(s\) in 4 block\(s\) .* were not delivered") as error:
            publisher.flush(20)
        assert "max.message.bytes" in error.value.hint
        assert publisher.acknowledged.rows == 0


TRAINER = """
import sys, time
import numpy as np
from ekko.schemas.errors import EkkoError
from ekko.streams.publisher import Publisher

bootstrap, steps = sys.argv[1], int(sys.argv[2])
with Publisher("ctr", bootstrap=bootstrap, transactional_id="job") as publisher:
    done = int(publisher.last_position() or b"0")
    print("from", done, flush=True)
    for step in range(done, steps):
        publisher.publish("users", np.arange(50), np.full((50, 16), 2.0**-24))
        publisher.publish("users", np.arange(50, 100), np.full((50, 16), 2.0**-24), position=str(step + 1).encode())
        print(step + 1, flush=True)
"""


def test_a_trainer_killed_again_and_again_learns_every_step_exactly_once(own_broker: Broker) -> None:
    steps, starts = 150, []
    for kill_after in (20, 45, 70, None):
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER, own_broker.bootstrap, str(steps)], stdout=subprocess.PIPE, text=True
        )
        assert trainer.stdout is not None
        starts.append(int(trainer.stdout.readline().split()[1]))
        for line in trainer.stdout:
            if kill_after is not None and int(line) >= kill_after:
                trainer.send_signal(signal.SIGKILL)
                break
        trainer.wait(60)
        trainer.stdout.close()
    assert trainer.returncode == 0
    assert starts[0] == 0
    assert sorted(starts) == starts
    assert all(start >= 20 for start in starts[1:])
    assert counts_in(own_broker.bootstrap).tolist() == [steps] * 100


def test_a_trainer_that_froze_while_another_took_over_adds_nothing(own_broker: Broker) -> None:
    command = [sys.executable, "-c", TRAINER, own_broker.bootstrap, "60"]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    for line in frozen.stdout:
        if not line.startswith("from") and int(line) >= 20:
            frozen.send_signal(signal.SIGSTOP)
            break
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 20 <= int(second.stdout.split()[1]) < 60
    frozen.send_signal(signal.SIGCONT)
    _, told = frozen.communicate(timeout=60)
    assert frozen.returncode != 0
    assert "Fenced" in told
    assert counts_in(own_broker.bootstrap).tolist() == [60] * 100


def test_a_trainer_that_froze_for_longer_than_a_transaction_may_last_goes_on_exactly(own_broker: Broker) -> None:
    command = [sys.executable, "-c", TRAINER, own_broker.bootstrap, "60"]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    for line in frozen.stdout:
        if not line.startswith("from") and int(line) in (15, 30, 45):
            frozen.send_signal(signal.SIGSTOP)
            time.sleep(3.0)  # the broker aborts what was open after 2 s
            frozen.send_signal(signal.SIGCONT)
    frozen.communicate(timeout=60)
    if frozen.returncode != 0:  # it was told that its transaction is gone: a restart must know how far it came
        subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert counts_in(own_broker.bootstrap).tolist() == [60] * 100


FORGETFUL = """
import sys
import numpy as np
from ekko.streams.publisher import Publisher

publisher = Publisher("ctr", bootstrap=sys.argv[1], linger_ms=10_000)
publisher.publish("users", np.arange(100), np.full((100, 16), 2.0**-24))
"""


def test_a_script_that_forgets_to_close_loses_nothing_and_is_told(own_broker: Broker) -> None:
    command = [sys.executable, "-c", FORGETFUL, own_broker.bootstrap]
    trainer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "was not closed" in trainer.stderr
    assert counts_in(own_broker.bootstrap).tolist() == [1] * 100


def test_partitions_added_while_it_runs_tear_no_row_apart(own_broker: Broker) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions  # noqa: PLC0415 - the adapter can't do this on purpose

    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap)) as publisher:
        publisher.publish("users", np.arange(100), ones(100))
        admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
        admin.create_partitions([NewPartitions(topics.deltas("ctr"), 8)])[topics.deltas("ctr")].result(10)
        for _ in range(20):
            publisher.publish("users", np.arange(100), ones(100))
            time.sleep(0.05)
    assert counts_in(own_broker.bootstrap).tolist() == [21] * 100
    with closing(KafkaCluster(own_broker.bootstrap)) as cluster:
        records = read_all(cluster, topics.deltas("ctr"))
        assert {record.partition.number for record in records} == {0, 1, 2, 3}
        with pytest.raises(CatalogueConflict, match=r"has 8 partition\(s\)"):
            Publisher("ctr", cluster=cluster)


# -- not let in


def test_no_broker_is_told_by_the_first_call_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1\b") as error:
        Publisher("ctr", bootstrap="127.0.0.1:1", timeout_s=2.0)
    assert time.monotonic() - started < 10
    assert "--bootstrap" in error.value.hint


def test_a_name_that_does_not_resolve_is_told_by_the_first_call_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid"):
        Publisher("ctr", bootstrap="no-such-host.invalid:9092", timeout_s=2.0)
    assert time.monotonic() - started < 10
