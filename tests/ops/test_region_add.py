"""`ekko region add` on real processes: a region of its own cluster, made from a donor that works on."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from tests.ops.deployment import EKKO, Deployment, Process
from tests.ops.regions_under_load import has_region, training
from tests.ports import free_port

TABLE = TableDeclaration("embedding", 4)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "own-broker") as running:
        yield running


def test_a_region_is_made_from_a_donor_under_load_though_retention_has_passed_the_beginning(
    own_broker: Broker, kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE, regions=1) as deployment:
        (donor,), name, folder = deployment.regions, f"{topic_prefix[:50]}-new", tmp_path / "seeding"
        add = ["region", "add", name, "--from", donor, "--folder", str(folder)]
        add += ["--region-bootstrap", own_broker.bootstrap]
        with training(broker.bootstrap, deployment.model.name):
            deployment.wait_healthy()
            deployment.trim_source_before_last_healthy()
            kill_at_four_moments([*EKKO, *add, "--bootstrap", broker.bootstrap])
            assert f"ekko restore {folder / 'seed'} --region {name}" in deployment.ekko(*add).stdout
            fanout = deployment.run("fanout-new", "fanout", "--region", name)
            assert "shards seeded" in deployment.ekko(*add).stdout, "once more does no harm"
            assert "taken over by another process" not in fanout.log.read_text()
            kept = deployment.wait_healthy()
            with closing(KafkaCluster(own_broker.bootstrap)) as own:
                deployment.wait("the mirrored catalogue", lambda: has_region(own, name))
            store = start_seeded(deployment, name, folder / "seed")
            healthy = deployment.wait_healthy()
            store.kill()
            store.start()
            empty = deployment.run(
                "store-empty",
                *("store", "--region", name, "--replica", "empty", "--port", "0", "--data", str(tmp_path / "empty")),
            )
        deployment.wait("an empty replica halts", lambda: "`ekko restore` it" in empty.log.read_text())
        for state in (None, healthy, kept):  # kept is older than the new store: from the donor's journals
            wait_equal(deployment, state)
        deployment.ekko("rollback", deployment.model.name, "--to", str(kept))
        wait_equal(deployment, None)
        deployment.regions.remove(name)
        assert f"region {name} deleted" in deployment.ekko("region", "remove", name, "--yes").stdout


def kill_at_four_moments(command: list[str]) -> None:
    for number in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.8 + 0.5 * number)
        process.kill()
        process.wait(120)


def start_seeded(deployment: Deployment, region: str, seed: Path) -> Process:
    """A replica of the new region, from its seed; wait until it serves."""
    data = deployment.folder / "new"
    deployment.ekko("restore", str(seed), "--region", region, "--data", str(data))
    deployment.regions.append(region)
    deployment.addresses[region] = f"127.0.0.1:{free_port()}"
    port = deployment.addresses[region].rpartition(":")[2]
    store = deployment.run("store-new", "store", "--region", region, "--data", str(data), "--port", port)
    deployment.wait("the new region serves", lambda: region in deployment.checksums())
    return store


def wait_equal(deployment: Deployment, state: int | None) -> None:
    """Equal bits in all regions as of `state`, and those of the source log."""
    expected = deployment.expected(state)

    def equal() -> bool:
        found = set()
        for region in deployment.regions:
            with deployment.client(region) as client:
                found.add(client.checksum("embedding", as_of=state).checksum)
        return found == {expected}

    deployment.wait(f"equal bits in all regions as of {state}", equal)


def test_what_cannot_be_a_region_is_refused_before_anything_is_changed(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE, regions=2) as deployment:
        donor, other = deployment.regions
        name, folder = f"{topic_prefix[:50]}-new", tmp_path / "seeding"
        deployment.wait_healthy()

        def refused(*arguments: str) -> str:
            done = deployment.ekko("region", "add", *arguments, "--folder", str(folder), check=False)
            assert done.returncode == 1, done.stdout
            return done.stderr

        assert "exists" in refused(other, "--from", donor)
        assert "is not in the catalogue" in refused(name, "--from", "nobody")
        out = tmp_path / "other"
        deployment.local("snapshot", "--store", deployment.addresses[other], "--to", str(out))
        assert "nothing was changed" in refused(name, "--from", donor, "--snapshot", str(out))
        mine = tmp_path / "mine"
        deployment.local("snapshot", "--store", deployment.addresses[donor], "--to", str(mine))
        assert "once" in refused(name, "--from", donor, "--snapshot", str(mine), "--snapshot", str(mine))
        deployment.wait_healthy()
        deployment.trim(f"{deployment.model.name}.deltas")
        assert "begins at" in refused(name, "--from", donor, "--snapshot", str(mine))
        assert not has_region(kafka, name)
