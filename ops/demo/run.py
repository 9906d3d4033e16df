"""A run of the demo from an empty folder to the summary."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ekko.ops.broker import ports
from ekko.ops.demo import processes
from ekko.ops.demo.incident import Incident, read_incident
from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.plan import FILE, MODEL, STREAM_FILE, DemoPlan, batch_size, replay_rate
from ekko.ops.demo.poison import poison_at_s
from ekko.ops.demo.source_sums import Published
from ekko.ops.demo.status import SERVER_FILE, TRAINER_FILE, ServerStatus, TrainerStatus, read_status
from ekko.ops.demo.summary import DemoSummary, summarise
from ekko.ops.demo.supervisor import Supervisor
from ekko.ops.demo.verify import verify
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError, EkkoError, NotReady
from ekko.storage.client import StoreClient
from ekko.storage.disk.data_folder import make_folder
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.kafka import KafkaCluster

HOST = "127.0.0.1"
REGIONS = ("east", "west")
START_TIMEOUT_S = 90.0
END_GRACE_S = 120.0
VERIFY_TIMEOUT_S = 120.0
POLL_S = 0.2

Tell = Callable[[str], None]
Watch = Callable[[DemoPlan, Supervisor], None]
"""Called about five times a second while the trainer runs."""


def empty_folder(folder: Path) -> None:
    """Make the folder, or clear the one of an earlier run: every run begins from nothing.

    Raises:
        ConfigurationError: it holds something else, which is left alone; or it cannot be made.
    """
    make_folder(folder, "--folder")
    if any(folder.iterdir()):
        if not (folder / FILE).exists():
            raise ConfigurationError(
                f"{folder} is not empty and not of an earlier demo", hint="name another folder with --folder"
            )
        shutil.rmtree(folder)
        folder.mkdir()


def make_plan(folder: Path, interactions: Interactions, seconds: float, *, poison: bool = False) -> DemoPlan:
    """A plan on free ports; with ``poison`` the trainer goes bad in the middle."""
    taken: set[int] = set()
    while len(taken) < len(REGIONS) + 2:
        taken.add(ports.free(HOST))
    broker_port, monitor_port, *store_ports = taken
    return DemoPlan(
        folder=folder,
        bootstrap=f"{HOST}:{broker_port}",
        model=MODEL,
        stores={region: f"{HOST}:{port}" for region, port in zip(REGIONS, store_ports, strict=True)},
        monitor_port=monitor_port,
        rate=replay_rate(len(interactions), seconds),
        batch=batch_size(len(interactions)),
        seconds=seconds,
        poison_at_s=poison_at_s(seconds) if poison else None,
    )


def run(
    folder: Path, interactions: Interactions, seconds: float, tell: Tell, watch: Watch, *, poison: bool = False
) -> DemoSummary:
    """Run the demo: ``seconds`` of training, then the check; set-up and check come on top.

    Raises:
        EkkoError: something did not start, kept dying, or did not end in time.
    """
    plan = make_plan(folder.absolute(), interactions, seconds, poison=poison)
    empty_folder(folder)
    plan.write()
    interactions.save(plan.folder / STREAM_FILE)
    with processes.broker_gone(plan), Supervisor(plan.folder) as supervisor:
        _log_to(plan.folder / "logs" / "demo.log")
        model = _set_up(plan, supervisor, tell)
        for spec in processes.learning(plan):
            supervisor.start(spec)
        tell(f"training for {seconds:g} s: {plan.rate:.0f} interactions a second, regions {', '.join(plan.stores)}")
        _train(plan, supervisor, seconds, watch)
        tell("training is over: waiting for the last barrier, then comparing both regions with the source log")
        return _conclude(plan, model, supervisor, interactions)


def _log_to(file: Path) -> None:
    """Keep what libraries log out of the table."""
    logging.basicConfig(filename=file, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _set_up(plan: DemoPlan, supervisor: Supervisor, tell: Tell) -> ModelDeclaration:
    """Start broker and data plane; returns once both regions serve."""
    tell("starting Apache Kafka")
    supervisor.start(processes.broker(plan))
    host, _, port = plan.bootstrap.rpartition(":")
    _await(lambda: ports.accepts(host, int(port)), supervisor, "the broker does not accept connections")
    with _cluster(plan) as cluster:
        declare(cluster, plan.declarations(), lambda _region: cluster)
        catalogue = Catalogue(cluster)
        catalogue.refresh()
        model = catalogue.model(plan.model)
        catalogue.close()
    tell("starting state manager, monitor, two fan-outs, two stores")
    for spec in processes.data_plane(plan):
        supervisor.start(spec)
    for region, address in plan.stores.items():
        with StoreClient(region, plan.model, stores=[address]) as client:
            _await(partial(_serves, client), supervisor, f"the store of {region} does not serve")
    return model


def _train(plan: DemoPlan, supervisor: Supervisor, seconds: float, watch: Watch) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S + seconds + END_GRACE_S
    try:
        while supervisor.running("trainer"):
            supervisor.check()
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the trainer has not ended {END_GRACE_S:.0f} s after its time", hint="look into its log"
                )
            watch(plan, supervisor)
            time.sleep(POLL_S)
    except KeyboardInterrupt:  # the training ends here, the check still follows
        supervisor.stop("trainer")


def _conclude(
    plan: DemoPlan, model: ModelDeclaration, supervisor: Supervisor, interactions: Interactions
) -> DemoSummary:
    supervisor.stop("server")
    trainer = read_status(plan.folder / TRAINER_FILE, TrainerStatus)
    restarts = supervisor.restarts()
    acknowledged = Published(trainer.acknowledged_rows, trainer.acknowledged_blocks, trainer.acknowledged_total)
    with _cluster(plan) as cluster:
        verification = verify(
            cluster, plan, model, None if restarts["trainer"] else acknowledged, timeout_s=VERIFY_TIMEOUT_S
        )
        poisoned_at = trainer.poisoned_at
        incident = Incident() if poisoned_at is None else read_incident(cluster, plan.model, poisoned_at)
    if not trainer.finished:
        verification.problems.append("the trainer did not end in good order")
    latencies = {}
    for region, address in plan.stores.items():
        with StoreClient(region, plan.model, stores=[address], timeout_s=5.0) as client:
            latencies[region] = client.latency()
    supervisor.check()
    return summarise(
        verification,
        trainer,
        read_status(plan.folder / SERVER_FILE, ServerStatus),
        latencies,
        incident=incident,
        plan=plan,
        dataset=interactions.origin,
        restarts=restarts,
    )


def _await(condition: Callable[[], bool], supervisor: Supervisor, what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        supervisor.check()
        if time.monotonic() > deadline:
            raise NotReady(f"{what} after {START_TIMEOUT_S:.0f} s", hint="the logs folder of the run tells more")
        time.sleep(POLL_S / 2)


def _serves(client: StoreClient) -> bool:
    try:
        client.state()
    except EkkoError:
        return False
    return True


@contextmanager
def _cluster(plan: DemoPlan) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(plan.bootstrap)
    try:
        yield cluster
    finally:
        cluster.close()
