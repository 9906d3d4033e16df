"""Plain writers: every record has a fate."""

import os

from ekko.schemas.errors import EkkoError, Purged
from ekko.streams.log import Cluster, Output, Partition, TopicSpec, Writer, read_all
from tests.streams.log.steps import (
    count_until_full,
    values,
)


def test_a_plain_record_too_large_is_reported_and_the_next_one_goes(cluster: Cluster, topic: str) -> None:
    small = f"{topic}-small"
    cluster.create_topics([TopicSpec(small, 1, {"max.message.bytes": "2000"})])
    fates: dict[str, tuple[int | None, Exception | None]] = {}
    writer = cluster.writer()
    writer.send(Output(Partition(small, 0), os.urandom(5_000)), lambda offset, error: fates.update(big=(offset, error)))
    writer.flush(120)  # a batch is refused whole, so the next record must not be in it
    writer.send(Output(Partition(small, 0), b"ok"), lambda offset, error: fates.update(ok=(offset, error)))
    assert writer.flush(120) == 0
    assert fates["big"][0] is None
    assert isinstance(fates["big"][1], EkkoError)
    assert fates["ok"][1] is None
    assert values(read_all(cluster, small)) == [b"ok"]
    writer.close()
    cluster.delete_topics([small])


def test_a_full_queue_refuses_and_nothing_is_dropped(cluster: Cluster, topic: str) -> None:
    writer = cluster.writer(queue_bytes=1 << 20)
    sent = count_until_full(writer, Output(Partition(topic, 0), bytes(50_000)))
    assert 1 < sent < 100
    assert writer.flush(120) == 0
    assert len(read_all(cluster, topic)) == sent
    writer.send(Output(Partition(topic, 0), b"room again"))
    assert writer.flush(120) == 0
    writer.close()


def test_what_is_purged_is_known_not_to_be_in_the_log(cluster: Cluster, topic: str) -> None:
    fates: dict[bytes, Exception | None] = {}

    def send(writer: Writer, value: bytes) -> None:
        writer.send(Output(Partition(topic, 0), value), lambda _, error: fates.update({value: error}))

    writer = cluster.writer(linger_ms=20_000)
    send(writer, b"first")
    send(writer, b"second")
    writer.purge()
    assert writer.flush(120) == 0
    assert [type(error) for error in fates.values()] == [Purged, Purged]
    send(writer, b"third")
    assert writer.flush(120) == 0
    assert fates[b"third"] is None
    send(writer, b"fourth")
    writer.purge()
    send(writer, b"fifth")  # at once: what is sent after a purge must not be taken by it
    assert writer.flush(120) == 0
    assert isinstance(fates[b"fourth"], Purged)
    assert fates[b"fifth"] is None
    assert values(read_all(cluster, topic)) == [b"third", b"fifth"]
    writer.close()
