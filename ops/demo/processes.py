"""The processes of a run, as the commands that anybody would start them with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ekko.ops.broker.folder import DataFolder
from ekko.ops.broker.process import ORPHAN_TIMEOUT_S
from ekko.ops.demo.child import ChildSpec
from ekko.ops.demo.plan import DemoPlan

EPOCH_INTERVAL_S = 5
HEALTHY_AFTER_S = 15
"""Longer than detection takes: a state of which a bad trainer is part must not pass for healthy."""
BROKER_STOP_S = 45.0
"""Longer than `Broker` needs to stop its Java, by SIGKILL if it must (2 x 20 s): killed before, it leaves an orphan."""
EKKO = (sys.executable, "-c", "from ekko.ops.cli import main; main()")

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
"""Ten processes share the machine: none needs threads of its own for arithmetic."""


def broker(plan: DemoPlan) -> ChildSpec:
    """Apache Kafka."""
    port = plan.bootstrap.rpartition(":")[2]
    data = str(_broker_folder(plan).path)
    return _ekko(plan, "broker", "broker", "--data", data, "--port", port, stop_s=BROKER_STOP_S)


@contextmanager
def broker_gone(plan: DemoPlan) -> Iterator[None]:
    """On leaving, after the supervisor: wait for a Java whose `ekko broker` was killed; its watcher is stopping it."""
    try:
        yield
    finally:
        _broker_folder(plan).await_orphan(ORPHAN_TIMEOUT_S)


def data_plane(plan: DemoPlan) -> list[ChildSpec]:
    """Manager, monitor, and each region's fan-out and store."""
    central = ("--bootstrap", plan.bootstrap)
    pace = ("--epoch-interval", str(EPOCH_INTERVAL_S), "--healthy-after", str(HEALTHY_AFTER_S))
    specs = [
        _ekko(plan, "manager", "manager", *central, *pace),
        _ekko(plan, "monitor", "monitor", *central, "--port", str(plan.monitor_port)),
    ]
    for region, address in plan.stores.items():
        host, _, port = address.rpartition(":")
        store = ("--replica", "0", "--data", str(plan.folder / f"store-{region}"), "--host", host, "--port", port)
        specs.append(_ekko(plan, f"fanout-{region}", "fanout", *central, "--region", region))
        specs.append(_ekko(plan, f"store-{region}", "store", *central, "--region", region, *store))
    return specs


def learning(plan: DemoPlan) -> list[ChildSpec]:
    """The serving loop and the trainer."""
    return [
        _ekko(plan, "server", "demo-part", "server", "--data", str(plan.folder)),
        _ekko(plan, "trainer", "demo-part", "trainer", "--data", str(plan.folder), ends=True),
    ]


def _broker_folder(plan: DemoPlan) -> DataFolder:
    return DataFolder(plan.folder / "broker")


def _ekko(plan: DemoPlan, name: str, *arguments: str, ends: bool = False, stop_s: float = 0.0) -> ChildSpec:
    environment = {**ENVIRONMENT, "EKKO_DATA": str(plan.folder)}
    return ChildSpec(name, (*EKKO, *arguments), environment, ends, stop_s)
