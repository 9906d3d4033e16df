"""Whether clocks agree: update latency is the difference of two, and members that look old are not shown."""

import time
from collections.abc import Iterable, Iterator

from ekko.ops.findings import Finding, ok, problem, warning
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.replicas import Member
from ekko.streams.log import Cluster, Output, Partition, Record

WARN_S = 0.5
WRONG_S = 5.0
"""Half of the age at which a member counts as gone."""
NAME = "doctor"
FIX = "let one time service (chrony, systemd-timesyncd) keep the clocks of brokers, trainers and stores"


def judge(who: str, ahead_s: float, uncertain_s: float = 0.0) -> Finding:
    """A clock that is so many seconds ahead of the broker's (negative: behind)."""
    wrong_s = max(0.0, abs(ahead_s) - uncertain_s)
    text = (
        f"{who}: {abs(ahead_s):.3f} s (±{uncertain_s:.3f}) {'ahead of' if ahead_s > 0 else 'behind'} the broker's clock"
    )
    if wrong_s > WRONG_S:
        return problem("clocks", text, FIX)
    return warning("clocks", text, FIX) if wrong_s > WARN_S else ok("clocks", text)


def check_own(cluster: Cluster, region: str) -> Finding:
    """Compare this machine's clock with the broker's, by the stamp that the broker gives to a record.

    The record says that a fan-out called `doctor` has left: nobody minds.
    """
    partition = Partition(topics.fanouts(region), 0)
    stamp: list[int] = []
    writer = cluster.writer()
    try:
        before_s = time.time()
        left = Member(region, NAME, "", ready=False, started_us=int(before_s * 1e6), written_us=int(before_s * 1e6))
        writer.send(Output(partition, encode(left), NAME.encode()), lambda offset, _error: stamp.append(offset or 0))
        writer.flush(5.0)
        after_s = time.time()
        record = _read(cluster, partition, stamp[0]) if stamp else None
    finally:
        writer.close()
    if record is None:
        return warning("clocks", "the broker did not stamp a record in time", "run the doctor again")
    middle_s = (before_s + after_s) / 2
    return judge("this machine", middle_s - record.timestamp_ms / 1e3, (after_s - before_s) / 2)


def check_fanouts(region: str, records: Iterable[Record], codec: Codec) -> Iterator[Finding]:
    """Clocks of the machines on which fan-outs run, by their last announcements and the broker's stamps on them."""
    last = {}
    for record in records:
        message = codec.decode(record.value) if record.value is not None else None
        if isinstance(message, Member) and message.ready:
            last[message.replica] = message.written_us / 1e6 - record.timestamp_ms / 1e3
    for name, ahead_s in sorted(last.items()):
        yield judge(
            f"fan-out {name} of region {region}", ahead_s, uncertain_s=1.0
        )  # it was on its way, perhaps waiting for the broker


def _read(cluster: Cluster, partition: Partition, offset: int) -> Record | None:
    reader = cluster.reader()
    deadline = time.monotonic() + 5.0
    try:
        reader.assign({partition: offset})
        while time.monotonic() < deadline:
            for record in reader.poll(0.2):
                if record.offset == offset:
                    return record
    finally:
        reader.close()
    return None
