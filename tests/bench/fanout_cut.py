"""Parts (c) and (d) of the fan-out's bench: a link cut by 92 % and tenfold, freshness, bytes, bits and online AUC."""

import re
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.log import read_all
from tests.bench import freshness, online_auc
from tests.bench.fanout_lab import MODEL, Lab, end, positions, say
from tests.bench.load import drift

REGION, UNCUT = "east", "west"
THIN = {"bulk_max_age_s": 2.0}
"""What a user with an SLO of 2.4 s sets on a thin link: rows gather for longer, and are still in time."""

EPOCH_S = 15.0
"""Half the product's default, for every wait for a barrier takes that long. Rows of two epochs are never summed."""

_TAKEN_OVER = re.compile(r"taken over in ([0-9.]+) s: (\d+) rows wait")

Figures = dict[str, float]


def stored_bytes(lab: Lab, topic: str) -> int:
    """Bytes of a topic's log as they crossed the network: compressed batches."""
    logs = (lab.far.broker.folder.path / "log").glob(f"{topic}-[0-9]*/*.log")
    return sum(log.stat().st_size for log in logs)


def source_bytes(lab: Lab) -> int:
    """Bytes of the source log: what a plain copy of it takes."""
    return stored_bytes(lab, topics.deltas(MODEL))


def sent_bytes(lab: Lab) -> int:
    """Bytes of both lanes of the region."""
    return sum(stored_bytes(lab, topics.lane(MODEL, REGION, lane)) for lane in Lane)


class Run(NamedTuple):
    """A load of some seconds: when it began, and bytes that the source log and the lanes grew by meanwhile."""

    began_us: int
    source: int
    sent: int


class Load(NamedTuple):
    """What is published: see `tests.bench.load`."""

    name: str
    rate: float
    seconds: float
    rows_a_call: int

    def publish(self, lab: Lab, seconds: float | None = None) -> None:
        """Publish it for its time, or for so long."""
        lab.publish(self.rate, self.seconds if seconds is None else seconds, self.rows_a_call, self.name)


def run_at(lab: Lab, load: Load, bandwidth: float | None = None) -> Run:
    """Publish while the region has this bandwidth (its fan-out's budget, and the link itself)."""
    settings = {} if bandwidth is None else {"bandwidth_bytes_per_s": bandwidth, **THIN}
    fanout = lab.fanout(REGION, **settings)
    lab.caught_up(REGION)
    load.publish(lab, 3.0)
    # The link carries Kafka's own talk, too.
    lab.link.limit(0.0 if bandwidth is None else 1.5 * bandwidth)
    began_us, source_before, before = time.time_ns() // 1_000, source_bytes(lab), sent_bytes(lab)
    carried = lab.link.carried().up
    load.publish(lab)
    source, sent = source_bytes(lab) - source_before, sent_bytes(lab) - before
    carried = lab.link.carried().up - carried
    if bandwidth is not None:
        say(f"{load.name}: budget {bandwidth:,.0f} bytes/s, the link carried {carried / load.seconds:,.0f}")
    time.sleep(freshness.SLO_S)
    lab.link.limit(0.0)
    end(fanout)
    return Run(began_us, source, sent)


class Takeover(NamedTuple):
    """What a takeover read back from the region over its thin link, how long it took, and rows that waited then."""

    nbytes: int
    seconds: float
    rows: int


def take_over(lab: Lab, bandwidth: float) -> Takeover:
    """Let another fan-out take over from the one that ended, with what that one left waiting."""
    lab.link.limit(1.5 * bandwidth)
    log, before = lab.folder / "processes.log", lab.link.carried().down
    told = len(_TAKEN_OVER.findall(log.read_text()))
    fanout = lab.fanout(REGION, bandwidth_bytes_per_s=bandwidth, **THIN)
    deadline = time.monotonic() + 120.0
    while len(found := _TAKEN_OVER.findall(log.read_text())) == told:
        assert time.monotonic() < deadline, f"no takeover, see {log}"
        time.sleep(0.01)
    nbytes = lab.link.carried().down - before
    end(fanout)
    lab.link.limit(0.0)
    seconds, rows = found[-1]
    return Takeover(nbytes, float(seconds), int(rows))


def cut(load: Load) -> Figures:
    """Freshness and bytes with the link cut by 92 % and by 90 %; then everything must have arrived, bit for bit."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder), [REGION], slow=REGION, epoch_interval_s=EPOCH_S) as lab,
    ):
        replica = lab.replica(REGION)
        load.publish(lab, 1.0)
        whole = run_at(lab, load)
        plain = whole.source / load.seconds  # what a plain copy of the log needs
        uncut = freshness.measure(lab.kafka, REGION, whole.began_us, positions(replica))
        thin = run_at(lab, load, 0.08 * plain)
        late = freshness.measure(lab.kafka, REGION, thin.began_us, positions(replica))
        taken = take_over(lab, 0.08 * plain)
        healed = lab.fanout(REGION)
        lab.caught_up(REGION)
        complete = bit_equal(lab)
        end(healed)
        before, source_before = sent_bytes(lab), source_bytes(lab)
        run_at(lab, load, 0.1 * plain)
        healed = lab.fanout(REGION)
        lab.caught_up(REGION)
        ratio = (sent_bytes(lab) - before) / (source_bytes(lab) - source_before)
        end(healed)
    say(f"{load.name}: a plain copy takes {plain:,.0f} bytes/s; uncut {uncut.late:.2%} of the score is late")
    say(
        f"cut by 92 %: {thin.sent / thin.source:.1%} of its bytes, {late.late:.2%} late (at best {late.floor:.2%}), "
        f"{late.updates:,} updates; "
        f"express p99 {late.express_p99_ms:,.0f} ms, the hundredth part of highest score {late.top_p99_ms:,.0f} ms, "
        f"the oldest delta of rows in the express lane {late.oldest_p99_ms:,.0f} ms, of the {late.promoted_share:.1%} "
        f"with which bulk travelled {late.promoted_p99_ms:,.0f} ms"
    )
    say(
        f"takeover over the cut link: {taken.nbytes:,} bytes read back, {taken.seconds:.2f} s, {taken.rows:,} rows wait"
    )
    say(f"after the cut bit-equal to the source: {complete}; tenfold cut, then drained: {ratio:.2f} of the plain log")
    return {
        "cut92_express_p99_ms": late.express_p99_ms,
        "cut92_top_p99_ms": late.top_p99_ms,
        "cut92_express_oldest_p99_ms": late.oldest_p99_ms,
        "cut92_promoted_share": late.promoted_share,
        "cut92_promoted_p99_ms": late.promoted_p99_ms,
        "cut92_freshness_lost": late.late - uncut.late,
        "cut92_freshness_floor": late.floor,
        "cut92_bytes_saved": 1 - thin.sent / thin.source,
        "cut92_bit_equal_after": float(complete),
        "cut92_takeover_bytes": taken.nbytes,
        "cut92_takeover_s": taken.seconds,
        "coalescing_bytes_ratio": ratio,
    }


def bit_equal(lab: Lab) -> bool:
    """Whether the sum of everything in the lanes is the sum of everything in the source log."""
    source = freshness.sum_rows(read_all(lab.kafka, topics.deltas(MODEL), timeout_s=120))
    lanes = [read_all(lab.kafka, topics.lane(MODEL, REGION, lane), timeout_s=120) for lane in Lane]
    sent = freshness.sum_rows([record for records in lanes for record in records])
    return all(np.array_equal(source[name], sent[name]) for name in source)


def auc_under_cut(load: Load) -> Figures:
    """Online AUC on the drift stream in a region cut by 92 % beside one that is not."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder), [REGION, UNCUT], slow=REGION, epoch_interval_s=EPOCH_S) as lab,
    ):
        lab.fanout(UNCUT)
        first = lab.fanout(REGION)
        load.publish(lab, 1.0)
        before = source_bytes(lab)
        load.publish(lab, 2.0)
        plain = (source_bytes(lab) - before) / 2.0
        end(first)
        lab.fanout(REGION, bandwidth_bytes_per_s=0.08 * plain, **THIN)
        lab.caught_up(REGION)
        lab.link.limit(1.5 * 0.08 * plain)
        began_us = time.time_ns() // 1_000
        load.publish(lab)
        lab.link.limit(0.0)
        lab.caught_up(REGION)
        lab.caught_up(UNCUT)
        paired = online_auc.measure(lab.kafka, UNCUT, REGION, drift(load.rows_a_call), began_us)
    say(
        f"online AUC over {paired.interactions:,} interactions: {paired.uncut:.4f} uncut, {paired.cut:.4f} cut by "
        f"92 %; difference {paired.cut - paired.uncut:+.4f}, 95 % interval {paired.low:+.4f} to {paired.high:+.4f}"
    )
    return {
        "auc_uncut": paired.uncut,
        "cut92_auc_change": paired.cut - paired.uncut,
        "cut92_auc_change_low": paired.low,
        "cut92_auc_change_high": paired.high,
    }
