"""`ekko snapshot` and `ekko restore` on real processes: a lost replica comes back elsewhere, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment, Process
from tests.ports import free_port

TABLE = TableDeclaration("embedding", 4)


def test_a_lost_replica_is_rebuilt_elsewhere_and_what_does_not_fit_is_refused(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE) as deployment:
        region, _ = deployment.regions
        rng = np.random.default_rng(3)

        def train() -> None:
            with Publisher(deployment.model.name, bootstrap=broker.bootstrap, trainer="t") as publisher:
                publisher.publish("embedding", rng.integers(0, 500, 2_000), rng.normal(size=(2_000, 4)))

        train()
        deployment.wait_exact("first rows")
        state = deployment.wait_healthy()
        out, data = tmp_path / "backup", tmp_path / "elsewhere"
        made = deployment.local("snapshot", "--store", deployment.addresses[region], "--to", str(out))
        assert f"{deployment.model.name}@" in made.stdout
        assert "exists" in deployment.local("snapshot", "--data", str(tmp_path / region), "--to", str(out)).stderr
        train()
        deployment.wait_exact("more rows")
        deployment.stores[region].kill()
        shutil.rmtree(tmp_path / region)
        check_refusals_and_restore(deployment, out, data)
        store = start_restored(deployment, data)
        deployment.wait_exact("the restored replica reads on from the snapshot")
        older = deployment.expected(before_epoch=state)
        with deployment.client(region) as client:
            assert client.checksum("embedding", as_of=state).checksum == older, "its journals came along"
        store.end()
        closed = deployment.local("snapshot", "--data", str(data), "--to", str(tmp_path / "closed"))
        assert "complete at state" in closed.stdout
        check_retention_is_refused(deployment, out, tmp_path / "late")
        check_another_incarnation_is_refused(deployment, out, tmp_path / "anew")


def check_refusals_and_restore(deployment: Deployment, out: Path, data: Path) -> None:
    """Another region and other shards are refused, then it is restored, and nothing is replaced unasked."""
    region, other = deployment.regions
    restore = ["restore", str(out), "--data", str(data), "--region"]
    wrong = deployment.ekko(*restore, other, check=False)
    assert wrong.returncode == 1
    assert "ekko region add NAME --from" in wrong.stderr
    odd = deployment.ekko(*restore, region, "--shards", "0", check=False)
    assert "holds shards [0, 1, 2]" in odd.stderr
    done = deployment.ekko(*restore, region)
    assert f"start it: ekko store --region {region} --data {data}" in done.stdout
    again = deployment.ekko(*restore, region, check=False)
    assert "exists; nothing was changed" in again.stderr
    assert "moved the store aside" in deployment.ekko(*restore, region, "--replace").stdout


def start_restored(deployment: Deployment, data: Path) -> Process:
    """Another replica of the first region, in its lost one's place."""
    region, port = deployment.regions[0], free_port()
    deployment.addresses[region] = f"127.0.0.1:{port}"
    replica = ["--region", region, "--replica", "new", "--data", str(data), "--port", str(port)]
    return deployment.run("restored", "store", *replica)


def check_retention_is_refused(deployment: Deployment, out: Path, data: Path) -> None:
    region = deployment.regions[0]
    deployment.trim(f"{deployment.model.name}.{region}.express")
    late = deployment.ekko("restore", str(out), "--region", region, "--data", str(data), check=False)
    assert late.returncode == 1
    assert "offsets are gone" in late.stderr
    assert "offsets in 3 partitions in all" in late.stderr
    assert not any(data.glob("*@*")), "nothing was changed"


def check_another_incarnation_is_refused(deployment: Deployment, out: Path, data: Path) -> None:
    """A model deleted and declared again under its name is another model, whatever the snapshot holds."""
    region, model = deployment.regions[0], deployment.model
    deployment.ekko("model", "delete", model.name, "--yes")
    gone = deployment.ekko("restore", str(out), "--region", region, "--data", str(data), check=False)
    assert "was deleted" in gone.stderr
    again = replace(model, incarnation=None)
    declare(deployment.kafka, Declarations((), (again,)), lambda _: deployment.kafka)
    other = deployment.ekko("restore", str(out), "--region", region, "--data", str(data), check=False)
    assert (gone.returncode, other.returncode) == (1, 1)
    assert f"is of model {model.name} of incarnation {model.incarnation}, the catalogue has" in other.stderr
    assert "nothing was changed" in other.stderr
    assert not any(data.glob("*@*"))
