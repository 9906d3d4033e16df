"""The broker goes away and comes back under a running store (CASES 9): nobody restarts it, nothing is lost or twice."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.blocks import Lane
from ekko.streams.kafka import KafkaCluster
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store_child import StoreChild


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_a_broker_that_comes_back_finds_the_store_where_it_was(tmp_path: Path, way: str) -> None:
    with Broker(tmp_path / "broker") as own, closing(KafkaCluster(own.bootstrap)) as cluster:
        lanes = Lanes(own, cluster, "ctr")
        child = StoreChild(own, lanes.region_name, tmp_path / "store")
        child.wait_ready("ctr")
        lanes.send(Lane.EXPRESS, 0)
        keys = lanes.keys(0, 3)
        with child.client("ctr") as client:
            child.wait("applied", lambda: bool(client.lookup("embedding", keys).found.all()))
            own.kill() if way == "kill" else own.stop()
            time.sleep(3)
            values = client.lookup("embedding", keys).values
            assert (values == np.float32(2.0**-24)).all(), "rows are served without a broker"
            own.start()
            lanes.reconnect()
            lanes.send(Lane.EXPRESS, 0)
            lanes.send(Lane.BULK, 0)
            child.wait("applied", lambda: client.state().shards[0].contiguous == 3)
            assert (client.lookup("embedding", keys).values == np.float32(3 * 2.0**-24)).all()

        def is_well() -> bool:  # what was lost with the broker may be told until the next announcement goes
            status, health = child.get("/health")
            return (status, health.get("halted"), health.get("problems")) == (200, {}, [])

        child.wait("well again", is_well)
        assert child.end() == 0
        lanes.close()
