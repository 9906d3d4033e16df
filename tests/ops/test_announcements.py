"""The newest message under each key of a compacted topic."""

from ekko.ops.announcements import newest
from ekko.schemas.codec import Codec, encode
from ekko.schemas.replicas import Member
from ekko.schemas.signals import Shares
from ekko.streams.log import Partition, Record


def record(offset: int, key: bytes, value: bytes | None) -> Record:
    return Record(Partition("ekko.east.members", 0), offset, key, value)


def member(name: str, address: str) -> bytes:
    return encode(Member("east", name, address, ready=True, started_us=1, written_us=2))


def test_later_records_count_tombstones_end_and_what_cannot_be_read_is_left_out() -> None:
    records = [
        record(0, b"a", member("a", "old:1")),
        record(1, b"b", member("b", "gone:1")),
        record(2, b"c", b"rubbish"),
        record(3, b"d", encode(Shares("ctr", 1, 0.5, 0.1, 3))),
        record(4, b"a", member("a", "new:1")),
        record(5, b"b", None),
    ]
    assert [each.address for each in newest(Codec(), records, Member)] == ["new:1"]
