"""One replica that tells every latency: `python -m tests.bench.replica BOOTSTRAP REGION MODEL FOLDER`.

It runs the product's applier and store, flushes included. A line on standard input is answered with one JSON object of
what became readable since the last one. To `take`: `rows`, and latencies from publish to readable in milliseconds of
each block's oldest delta, by lane. To `positions`: by lane and shard, pairs [offset, microseconds since 1970]: when
everything before the offset had become readable.
"""

import json
import sys
import threading
import time
from pathlib import Path

from ekko.ops.process import spare_collections
from ekko.schemas.blocks import Lane
from ekko.schemas.replicas import ReplicaState
from ekko.storage.store import Store
from ekko.streams.applier import Applier
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.kafka import KafkaCluster


class Observer:
    """Collects what the applier tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = 0
        self._found: dict[str, list[float]] = {lane: [] for lane in Lane}

    def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
        del recovering
        with self._lock:
            self._rows += rows
            self._found[lane] += latencies_ms

    def take(self) -> str:
        with self._lock:
            taken = {"rows": self._rows, **self._found}
            self._rows, self._found = 0, {lane: [] for lane in Lane}
        return json.dumps(taken)


class Progress:
    """Collects how far each lane had become readable, and when."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        self._found: dict[str, list[tuple[int, int]]] = {}

    def note(self, state: ReplicaState) -> None:
        now_us = time.time_ns() // 1_000
        with self._lock:
            for shard, position in state.shards.items():
                for lane, place in ((Lane.EXPRESS, position.express), (Lane.BULK, position.bulk)):
                    at = f"{lane}/{shard}"
                    if self._last.get(at) != place.offset:
                        self._last[at] = place.offset
                        self._found.setdefault(at, []).append((place.offset, now_us))

    def take(self) -> str:
        with self._lock:
            taken, self._found = self._found, {}
        return json.dumps(taken)


def main() -> None:
    """Apply until standard input ends."""
    bootstrap, region_name, name, folder = sys.argv[1:]
    cluster = KafkaCluster(bootstrap)
    catalogue = SharedCatalogue(cluster)
    catalogue.refresh()
    region, model = catalogue.region(region_name), catalogue.models[name]
    shards = list(range(model.shards))
    incarnation = region.incarnation or 0
    store = Store.open(
        Path(folder), model, shards, region_incarnation=incarnation, memory_bytes=2 * 1024**3, durable=None
    )
    observer, progress, stop = Observer(), Progress(), threading.Event()
    applier = Applier(cluster, region, model, store, catalogue, observer=observer)

    def work() -> None:
        while not stop.is_set():
            applier.step(time.time(), 0.02)
            progress.note(applier.state)

    spare_collections()
    thread = threading.Thread(target=work)
    thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for order in sys.stdin:
        taken = progress.take() if order.strip() == "positions" else observer.take()
        sys.stdout.write(taken + "\n")
        sys.stdout.flush()
    stop.set()
    thread.join()
    applier.close()
    store.close()


if __name__ == "__main__":
    main()
