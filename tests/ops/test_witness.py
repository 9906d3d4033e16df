"""A witness: one state of a model, bit for bit, from a replica that goes on applying."""

from pathlib import Path

import numpy as np

from ekko.ops.broker import Broker
from ekko.ops.exchange.holders import ask
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.hashing import checksum
from ekko.storage.client import StoreClient
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.ports import free_port

KEYS = np.arange(500, dtype=np.uint64)


def train(deployment: Deployment, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with Publisher(deployment.model.name, bootstrap=deployment.bootstrap, trainer="t") as publisher:
        publisher.publish("embedding", rng.integers(0, 500, 2_000), rng.normal(size=(2_000, 4)))
    deployment.wait_exact(f"rows of turn {seed}")


def served(address: str, region: str, model: str) -> int:
    """Checksum of what a reader gets who asks for no state."""
    with StoreClient(region, model, stores=[address], timeout_s=30.0) as client:
        reply = client.stored("embedding", KEYS)
        return checksum("embedding", KEYS[reply.found], reply.rows[reply.found])


def members(address: str, model: str) -> list[str]:
    """Replicas that a store names to its clients."""
    return [member.replica for member in ask([address], model)[1]]


def test_a_witness_serves_its_state_while_it_goes_on_applying(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    table = TableDeclaration("embedding", 4)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        (region,), model = deployment.regions, deployment.model.name
        train(deployment, 1)
        state = deployment.wait_healthy()
        deployment.local("snapshot", "--store", deployment.addresses[region], "--to", str(tmp_path / "out"))
        train(deployment, 2)
        data, address = tmp_path / "witness", f"127.0.0.1:{free_port()}"
        deployment.ekko("restore", str(tmp_path / "out"), "--region", region, "--data", str(data))
        asked = [model, "--state", str(state), "--region", region, "--data", str(data)]
        early = deployment.ekko("witness", model, "--state", "999999", *asked[3:], "--port", "0", check=False)
        assert f"state 999999 of model {model} does not exist" in early.stderr
        witness = deployment.run("witness", "witness", *asked, "--port", address.rpartition(":")[2])
        expected = deployment.expected(before_epoch=state)
        assert expected != deployment.expected()
        deployment.wait("the witness serves its state", lambda: served(address, region, model) == expected)
        train(deployment, 3)
        with StoreClient(region, model, stores=[address], timeout_s=30.0) as client:
            live = deployment.expected()
            deployment.wait("it applies all that comes", lambda: client.checksum("embedding").checksum == live)
        assert members(address, model) == ["witness"], "live reads go elsewhere"
        assert served(address, region, model) == expected
        witness.kill()
        witness.start()
        deployment.wait("the same after a kill", lambda: served(address, region, model) == expected)
        assert members(deployment.addresses[region], model) == ["0"], "and nobody is sent here"
        deployment.ekko("retract", model, "t", "--first", str(state - 1), "--last", str(state - 1))
        deployment.ekko("retract", model, "t", "--first", "0", "--last", str(state - 2))
        followed = deployment.expected(before_epoch=state)
        assert followed != expected
        deployment.wait("it follows retractions", lambda: served(address, region, model) == followed)
