"""A whole deployment of real processes on the test broker: manager, and in each region a fan-out and stores."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.ops import states_view
from ekko.ops.demo.source_sums import SourceSums
from ekko.ops.findings import Finding
from ekko.ops.process import region_cluster
from ekko.ops.settings import load
from ekko.ops.status import facts
from ekko.ops.status.judge import judge
from ekko.ops.status.signals import SignalTail
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import EkkoError
from ekko.schemas.hashing import checksum
from ekko.schemas.signals import AuditEntry
from ekko.storage.client import StoreClient
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition, read_all, read_range
from ekko.streams.manager.history import read_states
from ekko.streams.manager.verdicts import last_healthy
from tests.ports import free_port
from tests.streams.visible import await_visible
from tests.waiting import PATIENCE_S

EKKO = [sys.executable, "-c", "from ekko.ops.cli import main; main()"]


class Process:
    """One `ekko` process; `start` again after `kill`."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log, self._arguments = log, arguments
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen([*EKKO, *self._arguments], stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait(120)

    def end(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)


class Deployment:
    """Declares a model in regions of its own and runs everything; a context manager.

    Attributes:
        stores, fanouts: by region, the process of its one replica and of its fan-out; addresses: of the stores.
    """

    def __init__(
        self,
        kafka: KafkaCluster,
        bootstrap: str,
        name: str,
        folder: Path,
        *,
        table: TableDeclaration,
        regions: int = 2,
        epoch_interval_s: float = 0.5,
        shards: int = 3,
        store_flags: tuple[str, ...] = (),
        fanout_flags: tuple[str, ...] = (),
    ) -> None:
        self.kafka, self.bootstrap, self.folder, self.table = kafka, bootstrap, folder, table.name
        self.regions = [f"{name[:50]}-r{number}" for number in range(regions)]
        declared = [RegionDeclaration(region) for region in self.regions]
        model = ModelDeclaration(name[:55], shards=shards, tables=(table,))
        declare(kafka, Declarations(tuple(declared), (model,)), lambda _: kafka)
        catalogue = Catalogue(kafka)
        catalogue.refresh()
        self.model = catalogue.model(model.name)
        catalogue.close()
        assert self.model.incarnation is not None
        self._sums = SourceSums(self.model.incarnation)
        self._unread = {Partition(topics.deltas(model.name), shard): 0 for shard in range(shards)}
        self._opened = ExitStack()
        self.manager = self.run(
            "manager", "manager", "--epoch-interval", str(epoch_interval_s), "--healthy-after", "0.5"
        )
        self.addresses = {region: f"127.0.0.1:{free_port()}" for region in self.regions}
        self.stores: dict[str, Process] = {}
        self.fanouts: dict[str, Process] = {}
        for region, address in self.addresses.items():
            self.fanouts[region] = self.run(f"fanout-{region}", "fanout", "--region", region, *fanout_flags)
            self.stores[region] = self.run(
                f"store-{region}",
                *("store", "--region", region, "--data", str(folder / region), "--port", address.rpartition(":")[2]),
                *store_flags,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def run(self, name: str, *arguments: str) -> Process:
        """Start an `ekko` process that lives as long as the deployment."""
        process = Process(self.folder / f"{name}.log", *arguments, "--bootstrap", self.bootstrap)
        self._opened.callback(process.kill)
        return process

    def ekko(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an `ekko` command to its end."""
        command = [*EKKO, *arguments, "--bootstrap", self.bootstrap]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def local(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an `ekko` command that asks no broker."""
        return subprocess.run([*EKKO, *arguments], capture_output=True, text=True, timeout=180, check=False)

    def trim(self, topic: str) -> None:
        """Retention passes: nothing of the topic that stands now is left."""
        ends = self.kafka.bounds(Partition(topic, shard) for shard in range(self.model.shards))
        self.trim_before({partition: bounds.end for partition, bounds in ends.items()})

    def trim_source_before_last_healthy(self) -> None:
        """Retention passes: the source log begins with the barrier of the last healthy state.

        What is before it is read first, for `sums`: of the states known now, for others may become healthy meanwhile.
        """
        states = read_states(self.kafka, Codec(), self.model)
        last = last_healthy(states.values())
        assert last is not None
        self.sums()
        topic = topics.deltas(self.model.name)
        self.trim_before({Partition(topic, shard): offset for shard, offset in enumerate(last.offsets)})

    def trim_before(self, offsets: Mapping[Partition, int]) -> None:
        """Retention passes: nothing before these offsets is left."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        asked = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        for future in admin.delete_records(asked).values():
            future.result(120)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until `condition` holds; an EkkoError means not yet."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except EkkoError:
                pass
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))
                raise AssertionError(f"{what}: not within {timeout_s} s\n{logs}")
            time.sleep(0.05)

    def client(self, region: str) -> StoreClient:
        return StoreClient(region, self.model.name, stores=[self.addresses[region]], timeout_s=30.0)

    def audit(self) -> list[AuditEntry]:
        """The model's audit trail, with what was committed a moment ago."""
        topic = topics.audit(self.model.name)
        await_visible(self.kafka, topic)
        found = (Codec().decode(record.value) for record in read_all(self.kafka, topic))
        return [entry for entry in found if isinstance(entry, AuditEntry)]

    def findings(self) -> list[Finding]:
        """What `ekko status` finds, told by its own code in this process: for those who ask again and again."""
        settings, now_us = load(None, bootstrap=self.bootstrap), int(time.time() * 1e6)
        found = facts.read(self.kafka, lambda region: region_cluster(settings, region), SignalTail(self.kafka))
        return list(judge(found, now_us, settings.epoch_interval_s))

    def states(self) -> list[dict[str, Any]]:
        """What `ekko states --json` says."""
        listed = states_view.read(self.kafka, self.model.name, lambda _: self.kafka).json_lines(10_000)
        return [json.loads(line) for line in listed.splitlines()]

    def sums(self) -> SourceSums:
        """The truth by the raw source log: all that is acknowledged now, also what a barrier being written hides.

        It is read on from where it was read to, so retention may pass what was read.
        """
        await_visible(self.kafka, topics.deltas(self.model.name))
        records = read_range(self.kafka, self._unread)
        self._unread |= {record.partition: record.offset + 1 for record in records}
        self._sums.feed(records)
        return self._sums

    def expected(self, before_epoch: int | None = None) -> int:
        """Checksum of the table by the raw source log."""
        keys, rows = self.sums().rows(self.table, before_epoch)
        return checksum(self.table, keys, rows)

    def checksum_of(self, region: str) -> int:
        """Checksum of the table at a region's store."""
        with self.client(region) as client:
            return client.checksum(self.table).checksum

    def checksums(self) -> dict[str, int]:
        """Checksum of the table at each region's store."""
        return {region: self.checksum_of(region) for region in self.regions}

    def wait_exact(self, what: str) -> None:
        """Wait until every region's store holds exactly what the source log says.

        The log is read on each time: what is acknowledged behind a barrier that is being written is not visible yet.
        """
        self.wait(what, lambda: set(self.checksums().values()) == {self.expected()})

    def wait_healthy(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for a healthy state that holds all that was published until now; its number.

        It is not the next one: the next barrier may be committed, and its state not be published yet.
        """
        opened = self.states()
        newest = opened[-1]["state"] if opened else 0
        found: list[int] = []

        def healthy() -> bool:
            found[:] = [s["state"] for s in self.states() if s["state"] > newest + 1 and s["verdict"] == "healthy"]
            return bool(found)

        self.wait("a healthy state", healthy, timeout_s)
        return found[0]
