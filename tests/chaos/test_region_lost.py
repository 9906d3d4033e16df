"""A region is lost: its replicas' disks, then its whole cluster; trainers go on, and it comes back exactly."""

import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import RegionDeclaration, TableDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from tests.ops.deployment import Deployment, Process
from tests.ops.regions_under_load import has_region, training
from tests.ports import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

TABLE = TableDeclaration("embedding", 4)


class LostRegion:
    """A region with a cluster of its own, of which a part is lost, and then everything."""

    def __init__(self, deployment: Deployment, name: str, folder: Path) -> None:
        self.deployment, self.name, self.data = deployment, name, folder / "data"
        deployment.addresses[name] = f"127.0.0.1:{free_port()}"
        self.lives = 0

    def start(self, home: Broker) -> tuple[Process, Process]:
        """A fan-out, and a store as soon as its cluster holds a copy of the catalogue."""
        self.lives += 1
        port = self.deployment.addresses[self.name].rpartition(":")[2]
        fanout = self.deployment.run(f"fanout-lost-{self.lives}", "fanout", "--region", self.name)
        with closing(KafkaCluster(home.bootstrap)) as own:
            self.deployment.wait("the mirrored catalogue", lambda: has_region(own, self.name))
        arguments = ["--region", self.name, "--data", str(self.data), "--port", port]
        return fanout, self.deployment.run(f"store-lost-{self.lives}", "store", *arguments)

    def restore(self, snapshot: Path, *, check: bool = True) -> str:
        """What `ekko restore` says."""
        arguments = ["restore", str(snapshot), "--region", self.name, "--data", str(self.data)]
        done = self.deployment.ekko(*arguments, check=check)
        assert check or done.returncode == 1
        return done.stdout + done.stderr

    def wait_equal_at_the_next_state(self) -> None:
        """At the next state complete everywhere both regions and the raw log say the same, as of it."""
        state = self.deployment.wait_healthy(90)
        found = {}
        for region in self.deployment.regions:
            with self.deployment.client(region) as client:
                found[region] = client.checksum("embedding", as_of=state).checksum
        expected = self.deployment.expected(before_epoch=state)
        assert found == dict.fromkeys(self.deployment.regions, expected), f"state {state}"


def test_a_lost_region_is_rebuilt_from_a_snapshot_and_its_lanes_and_from_another_region(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    name = f"{topic_prefix[:50]}-lost"
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE, regions=1) as deployment:
        (alive,) = deployment.regions
        lost, backup = LostRegion(deployment, name, tmp_path), tmp_path / "backup"
        with training(deployment.bootstrap, deployment.model.name):
            deployment.wait_healthy()
            with Broker(tmp_path / "home") as home:
                declared = RegionDeclaration(name, bootstrap=home.bootstrap)
                with closing(KafkaCluster(home.bootstrap)) as own:
                    declare(kafka, Declarations((declared,)), lambda _: own)
                processes = lost.start(home)
                deployment.regions.append(name)
                deployment.wait("the region serves", lambda: name in deployment.checksums())
                lost.wait_equal_at_the_next_state()
                deployment.local("snapshot", "--store", deployment.addresses[name], "--to", str(backup))
                time.sleep(2)
                processes = lose_the_disks(lost, processes, home, backup)
                for process in processes:
                    process.kill()
                home.kill()
            lose_everything(lost, backup, alive, tmp_path)
            with Broker(tmp_path / "new-home") as new_home:
                seed_anew(lost, backup, alive, new_home, tmp_path)
                lost.wait_equal_at_the_next_state()
                deployment.ekko("region", "remove", name, "--yes")
            deployment.regions.remove(name)
        deployment.wait_exact("the surviving region, when the trainer has ended")


def lose_the_disks(
    lost: LostRegion, processes: tuple[Process, Process], home: Broker, backup: Path
) -> tuple[Process, Process]:
    """Everything is killed at once and every replica's folder is gone; the cluster comes back with its lanes."""
    for process in processes:
        process.kill()
    home.kill()
    shutil.rmtree(lost.data)
    home.start()
    assert "start it: ekko store" in lost.restore(backup)
    processes = lost.start(home)
    lost.wait_equal_at_the_next_state()
    return processes


def lose_everything(lost: LostRegion, backup: Path, alive: str, folder: Path) -> None:
    """The cluster's disks are gone, too: it is said what is to be done, and the other region never noticed."""
    deployment = lost.deployment
    shutil.rmtree(folder / "home")
    shutil.rmtree(lost.data)
    before = deployment.checksum_of(alive)
    deployment.wait("the surviving region learns on", lambda: deployment.checksum_of(alive) != before)
    assert "listing topics failed" in lost.restore(backup, check=False), "its cluster does not answer"
    removed = deployment.ekko("region", "remove", lost.name, "--yes", check=False)
    assert lost.name in removed.stdout + removed.stderr
    deployment.regions.remove(lost.name)
    deployment.wait_healthy()  # states are complete in all regions that are left


def seed_anew(lost: LostRegion, backup: Path, alive: str, new_home: Broker, folder: Path) -> None:
    """The same name on another cluster, from the surviving region; the old snapshot is another region's now."""
    deployment, seeding = lost.deployment, folder / "seeding"
    add = ["region", "add", lost.name, "--from", alive, "--folder", str(seeding)]
    deployment.ekko(*add, "--region-bootstrap", new_home.bootstrap)
    refused = lost.restore(backup, check=False)
    assert f"is of region {lost.name} of incarnation" in refused
    assert "nothing was changed" in refused
    assert not lost.data.exists()
    lost.restore(seeding / "seed")
    lost.start(new_home)
    deployment.regions.append(lost.name)
    deployment.wait("the region serves again", lambda: lost.name in deployment.checksums(), 90)
