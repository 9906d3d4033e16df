"""Measures the store: applies, flushes, reads, recovery, beside the machine's limits and a plain loop on RocksDB.

Run: make bench-store ARGS='--rows 1000000 --seconds 10' for a quick look. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.journal import ENTRY_BYTES
from ekko.storage.engine.merging import sum_duplicates
from ekko.storage.store import Store
from tests.bench.store_plain import plain_loop, scan_rate
from tests.bench.store_work import Shape, blocks, cycle, filled, limits, machine, percentile

GIB = 1 << 30
EPOCH_S = 5.0
"""Shorter than the default of 30 s, so that several epochs, first touches and late rows fall into a run."""

PINNED = 200
"""The state that is pinned while readers are measured; a second of applies is an epoch there."""

PLAIN_LOOP_AT_LEAST = 100_000
"""Rows/s that a fair plain loop reaches on a machine at rest."""


def main() -> None:
    arguments = _arguments()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="ekko-bench-") as folder:
        say(f"machine: {machine()}")
        say(f"limits: {limits(Path(folder), 64)}")
        small = Shape(1_000_000, 16, 10_000, zipf=True)
        store = filled(Path(folder) / "small", small, 2 * GIB)
        figures["apply_rows_per_s_1m_x16"] = apply_rates(store, small, 1)
        store.close()
        large = Shape(arguments.rows, 64, 10_000, zipf=True)
        begun = time.perf_counter()
        store = filled(Path(folder) / "large", large, 12 * GIB)
        say(f"filling {large.rows} rows, flushed as it goes: {time.perf_counter() - begun:.1f} s")
        figures["apply_rows_per_s_10m_x64"] = apply_rates(store, large, 1)
        figures |= flush_stall(store, large, 50)
        figures |= sustained(store, large, arguments.seconds)
        figures |= shared_reads(store, large, Path(folder) / "large", float(str(figures["apply_rows_per_s_10m_x64"])))
        figures |= undo_rate(store, large)
        store.close()
        figures |= recovery(Path(folder) / "large", large)
        plain = plain_loop(Path(folder) / "plain", large, min(arguments.seconds, 10.0))
        if plain < PLAIN_LOOP_AT_LEAST:
            say(f"the plain loop does {plain / 1e3:.0f} k rows/s: this machine is too busy, the ratio is void")
        else:
            say(f"the plain loop: {plain / 1e3:.0f} k rows/s")
        figures["plain_loop_rows_per_s"] = round(plain)
        figures["ratio_to_plain_loop"] = round(float(str(figures["apply_sustained_rows_per_s_10m_x64"])) / plain, 1)
    figures["row_bytes_x64"], figures["journal_entry_bytes_x64"] = row_bytes(64), ENTRY_BYTES + 256
    say(json.dumps(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large table")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the sustained run")
    return parser.parse_args()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def apply_rates(store: Store, shape: Shape, epoch: int) -> int:
    """Rows/s between flushes, journals on: the median of epochs of 1 M rows, after one that commits the memory."""
    result = 0
    for block in (shape.block, 1_000):
        for zipf in (True, False):
            form = replace(shape, block=block, zipf=zipf)
            made = blocks(form, min(1_000_000 // block, 100), seed=block)
            rates = []
            for _ in range(4):
                store.raise_bound(epoch - 1)
                rates.append(_apply_epoch(store, made, epoch))
                epoch += 1
            rate, cpu_rate = np.median(rates[1:], axis=0)
            say(
                f"apply {form.name}: {rate / 1e6:.2f} M rows/s, {1e9 / rate:.0f} ns/row "
                f"({cpu_rate / 1e6:.2f} M rows a CPU second); {_steps(store, made)}"
            )
            result = result or round(rate)
    store.flush(store.state)
    return result


def _apply_epoch(store: Store, made: list[tuple[UInt64s, Int32s]], epoch: int) -> tuple[float, float]:
    """Rows a second, and rows a second of this thread's CPU: what the machine would do if it had nothing else to do."""
    rows, begun, cpu = 0, time.perf_counter(), time.thread_time()
    for keys, deltas in made:
        rows += store.apply("rows", epoch, epoch, keys, deltas)
    return rows / (time.perf_counter() - begun), rows / (time.thread_time() - cpu)


def _steps(store: Store, made: list[tuple[UInt64s, Int32s]]) -> str:
    """What the parts of an apply take, each measured alone: ns a row."""
    table, count = store._tables["rows"], sum(len(keys) for keys, _ in made)

    def timed(work: object) -> float:
        begun = time.perf_counter()
        for keys, deltas in made:
            work(keys, deltas)  # type: ignore[operator]
        return (time.perf_counter() - begun) / count * 1e9

    buffer = np.empty_like(made[0][1])
    slots = [table.index.find(keys) for keys, _ in made]
    turn = iter(slots)
    parts = {
        "duplicates": timed(sum_duplicates),
        "index": timed(lambda keys, _: table.index.find(keys)),
        "gather": timed(lambda *_: table.arena.rows.take(next(turn), axis=0, mode="clip", out=buffer)),
        "add": timed(lambda _, deltas: np.add(buffer, deltas, out=buffer)),
    }
    return ", ".join(f"{name} {nanoseconds:.0f}" for name, nanoseconds in parts.items())


def flush_stall(store: Store, shape: Shape, epoch: int) -> dict[str, object]:
    """Block times while 500 k dirty rows (and their journal entries) are captured, written and ingested."""
    store.raise_bound(epoch)
    random = cycle(blocks(replace(shape, zipf=False), 60, seed=5))
    stalls, times, dirty = [], [], 0
    for _ in range(4):
        dirty = 0
        while dirty < 500_000:
            dirty += store.apply("rows", epoch, epoch, *next(random))
        begun = time.perf_counter()
        store.begin_flush(store.state)
        stalls.append(time.perf_counter() - begun)
        while not store.poll_flush():
            begun = time.perf_counter()
            store.apply("rows", epoch, epoch, *next(random))
            times.append(time.perf_counter() - begun)
        epoch += 1
    say(f"flush of 500 k rows, begin_flush: {[round(s * 1e3) for s in stalls]} ms; blocks during it: {len(times)}")
    return {
        "flush_block_p99_ms": round(percentile(times, 99), 2),
        "flush_block_p50_ms": round(percentile(times, 50), 2),
        "flush_longest_stall_ms": round(max([*stalls[1:], *times]) * 1e3, 1),
    }


def sustained(store: Store, shape: Shape, seconds: float) -> dict[str, object]:
    """Apply for `seconds` with flushes and compaction; a third of the rows one to three epochs late."""
    made, random = cycle(blocks(shape, 300, seed=9)), np.random.default_rng(0)
    begun, cpu = time.perf_counter(), time.thread_time()
    rows, flushes, times = 0, 0, []
    first = epoch = 100
    while (now := time.perf_counter()) - begun < seconds:
        epoch = first + int((now - begun) / EPOCH_S)
        late = int(random.integers(1, 4)) if random.random() < 1 / 3 else 0
        rows += store.apply("rows", epoch, max(first, epoch - late), *next(made))
        if store.poll_flush() and store.flush_due(time.monotonic()):
            store.begin_flush(store.state)
            flushes += 1
        times.append(time.perf_counter() - now)
    rate, cpu_rate = rows / (time.perf_counter() - begun), rows / (time.thread_time() - cpu)
    backlog = store._durable._database.property_value("rocksdb.num-files-at-level0")  # type: ignore[attr-defined]
    store.flush(store.state)
    say(
        f"sustained {seconds:.0f} s: {rate / 1e6:.2f} M rows/s ({cpu_rate / 1e6:.2f} M a CPU second), "
        f"{flushes} flushes, {epoch - first + 1} epochs, "
        f"block p50 {percentile(times, 50):.1f} p99 {percentile(times, 99):.1f} max {max(times) * 1e3:.0f} ms; "
        f"{backlog} files wait to be merged"
    )
    return {"apply_sustained_rows_per_s_10m_x64": round(rate), "sustained_longest_ms": round(max(times) * 1e3, 1)}


def shared_reads(store: Store, shape: Shape, folder: Path, full_rate: float) -> dict[str, object]:
    """Another process looks up 1,000 rows at a time, of now and of a pinned state, while applies run at half speed."""
    positions = {shard: replace(position, complete=PINNED) for shard, position in store.state.shards.items()}
    store.publish(replace(store.state, shards=positions), serving=True)
    store.pin(PINNED)
    command = [sys.executable, "-m", "tests.bench.store_reader", str(folder), str(shape.rows), "5", str(PINNED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        made, begun, rows = cycle(blocks(shape, 100, seed=11)), time.perf_counter(), 0
        while reader.poll() is None:
            epoch = PINNED + int(time.perf_counter() - begun)
            rows += store.apply("rows", epoch, epoch, *next(made))
            time.sleep(max(0.0, rows / (full_rate / 2) - (time.perf_counter() - begun)))
        figures = json.loads(reader.stdout.read())
    say(f"shared reads beside {rows / (time.perf_counter() - begun) / 1e6:.2f} M rows/s: {figures}")
    store.unpin()
    return {name: figure for name, figure in figures.items() if name != "lookups"}


def undo_rate(store: Store, shape: Shape) -> dict[str, object]:
    """Take back an epoch that touched a million rows (as many as the table has, if fewer)."""
    count = min(1_000_000, shape.rows)
    made = blocks(replace(shape, zipf=False, block=count // 10), 10, seed=13)
    for keys, deltas in made:
        store.apply("rows", 300, 300, keys, deltas)
    begun, cpu = time.perf_counter(), time.thread_time()
    rows = store.undo(EpochRange(300, 300))
    seconds, cpu_seconds = time.perf_counter() - begun, time.thread_time() - cpu
    store.flush(store.state)
    say(f"undo of {rows} rows: {seconds:.3f} s, {cpu_seconds:.3f} s of CPU")
    return {"undo_rows": rows, "undo_s": round(seconds, 3)}


def recovery(folder: Path, shape: Shape) -> dict[str, object]:
    """Open the store again: rows scanned in, hashed and compared, journals restored."""
    model = ModelDeclaration("bench", 1, 1, (TableDeclaration("rows", shape.dim),), incarnation=1)
    begun = time.perf_counter()
    store = Store.open(folder, model, [0], region_incarnation=1, memory_bytes=12 * GIB)
    seconds = time.perf_counter() - begun
    cells = store.row_count("rows") + store._tables["rows"].pool.entries.count
    say(f"recovery: {seconds:.1f} s for {cells / 1e6:.1f} M rows and entries, {store.memory_bytes() / GIB:.2f} GiB")
    store.close()
    limit = scan_rate(folder / "rocksdb")
    say(f"the limit: RocksDB's own iteration gives {limit / 1e6:.2f} M rows/s, {cells / limit:.1f} s for as many")
    return {"recovery_s": round(seconds, 1), "recovery_cells": cells, "scan_rows_per_s": round(limit)}


if __name__ == "__main__":
    main()
