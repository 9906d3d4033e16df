"""docker-compose.yml: valid, confined, and its services do the demo's job when they run as processes here."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ekko.ops.demo.plan import MODEL, DemoPlan
from ekko.ops.demo.source_sums import Published
from ekko.ops.demo.status import SERVER_FILE, TRAINER_FILE, ServerStatus, TrainerStatus, read_status
from ekko.ops.demo.verify import verify
from ekko.streams.catalogue import Catalogue
from ekko.streams.kafka import KafkaCluster
from tests.ops.compose_file import ROOT, compose, project
from tests.ops.containers import Containers
from tests.ops.dockerfile import instructions
from tests.ops.monitoring_files import RULES, TARGETS
from tests.ops.promql import selectors
from tests.waiting import until_true

SECONDS = 12
ENDS = {"setup", "trainer"}


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """docker-compose.yml as Compose understands it."""
    return project(EKKO_DEMO_SECONDS=str(SECONDS))


@pytest.fixture(scope="module")
def services(file: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return file["services"]


def test_compose_takes_the_file_and_would_refuse_a_wrong_one(tmp_path: Path) -> None:
    assert compose("config", "-q").returncode == 0
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("depends_on:", "depends_upon:"))
    refused = compose("config", "-q", file=wrong)
    assert refused.returncode != 0
    assert "depends_upon" in refused.stderr


def test_it_is_the_whole_deployment(services: dict[str, Any]) -> None:
    stores = {f"store-{region}-{replica}" for region in ("east", "west") for replica in (0, 1)}
    fanouts = {"fanout-east", "fanout-west"}
    assert set(services) == {"broker", "setup", "manager", "monitor", "trainer", "server", *fanouts, *stores}


def test_every_service_is_confined_and_watched(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["image"] == "ekko-kafka", name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["init"], f"{name}: somebody must reap the children of process 1"
        assert "user" not in service, f"{name}: the image's own user is not root"
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert "healthcheck" in service or name == "setup"
        assert service["restart"] == ("on-failure" if name in ENDS else "unless-stopped"), name


def test_what_must_outlive_a_container_stands_in_a_volume_of_its_own(file: dict[str, Any]) -> None:
    volumes = {
        name: [mount["source"] for mount in service.get("volumes", [])] for name, service in file["services"].items()
    }
    keeps = [name for name in volumes if name == "broker" or name.startswith("store-")]
    assert [volumes[name] for name in keeps] == [[name] for name in keeps]
    assert set(file["volumes"]) == {volume for mounted in volumes.values() for volume in mounted}


def test_the_port_of_kafka_on_the_host_may_be_another() -> None:
    broker = project(EKKO_KAFKA_PORT="9999")["services"]["broker"]
    assert [port["published"] for port in broker["ports"]] == ["9999"]
    (advertised,) = [word for word in broker["command"] if "advertised.listeners" in word]
    assert "HOST://127.0.0.1:9999," in advertised


@pytest.fixture(scope="module")
def running(file: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """All services, started as the file says; trained to the end."""
    (entrypoint,) = [json.loads(r) for k, r in instructions((ROOT / "Dockerfile").read_text()) if k == "ENTRYPOINT"]
    deadline = time.monotonic() + 500
    with Containers(file, entrypoint, tmp_path_factory.mktemp("compose")) as containers:
        containers.up(deadline)
        for name in file["services"]:
            if name not in ENDS:
                containers.await_healthy(name, deadline)
        containers.await_completed("trainer", deadline)
        yield containers


def test_both_regions_serve_what_was_trained_bit_for_bit(running: Containers) -> None:
    plan = DemoPlan.read(running.volume("demo"))
    trainer = read_status(plan.folder / TRAINER_FILE, TrainerStatus)
    assert trainer.finished
    assert trainer.position > 100 * SECONDS / 2
    served = read_status(plan.folder / SERVER_FILE, ServerStatus).regions
    assert {region for region, serving in served.items() if serving.requests > SECONDS} == set(plan.stores)
    cluster = KafkaCluster(running.address("broker", 9092), timeout_s=60.0)  # as a program on the host
    catalogue = Catalogue(cluster)
    catalogue.refresh()
    model = catalogue.model(MODEL)
    catalogue.close()
    acknowledged = Published(trainer.acknowledged_rows, trainer.acknowledged_blocks, trainer.acknowledged_total)
    for replica in (0, 1):
        stores = {region: running.address(f"store-{region}-{replica}", 7070) for region in plan.stores}
        found = verify(cluster, plan.model_copy(update={"stores": stores}), model, acknowledged, timeout_s=60)
        assert found.problems == []
        assert found.keys > 100


def test_stores_tell_each_other_addresses_that_work(running: Containers) -> None:
    def status_names_them_all() -> None:
        told = running.run("manager", "ekko", "status", "--json")
        assert told.returncode == 0, told.stdout + told.stderr
        for region in ("east", "west"):
            for replica in (0, 1):
                assert running.address(f"store-{region}-{replica}", 7070) in told.stdout

    until_true(status_names_them_all)


def test_prometheus_would_find_all_that_its_alerts_ask_for(running: Containers) -> None:
    """But for what only shows when something is wrong."""
    asked = {selector.name for rule in RULES for selector in selectors(rule["expr"])}
    missing = {"ekko_store_overflowed_rows", "ekko_fanout_rejected_total", "ekko_monitor_silent_trainer_seconds"}

    def they_are_told() -> None:
        found = set()
        for target in TARGETS:
            name, _, port = target.partition(":")
            with urlopen(f"http://{running.address(name, int(port))}/metrics", timeout=60) as answer:
                assert answer.headers.get_content_type() == "text/plain"
                families = list(text_string_to_metric_families(answer.read().decode()))
            samples = [sample for family in families for sample in family.samples]
            assert any(sample.name.startswith("ekko_") for sample in samples) or name == "monitor"
            found |= {sample.name for sample in samples}
        assert asked - found <= {"up", *missing}

    until_true(they_are_told)


def test_the_doctor_finds_nothing_wrong(running: Containers) -> None:
    def nothing_is_wrong() -> None:
        examined = running.run("manager", "ekko", "doctor")
        assert examined.returncode == 0, examined.stdout + examined.stderr

    until_true(nothing_is_wrong)


def test_services_without_a_volume_write_nothing_and_all_end_when_asked(
    running: Containers,
) -> None:
    """The last one: it stops everything."""
    codes = running.down(timeout_s=120)
    assert set(codes) == set(running.services) - ENDS, "a service that should run has ended"
    assert codes == dict.fromkeys(codes, 0)
    for name, service in running.services.items():
        if not service.get("volumes"):
            assert list(running.workdir(name).iterdir()) == [], f"{name} writes into a file system that is read-only"
