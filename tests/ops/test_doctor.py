"""`ekko doctor` on real brokers that are set up wrong: each fault is found, and the fix it prints mends it.

A broker knows of what was changed a moment after that was answered, and a busy one may keep the doctor waiting for too
long, which it tells: so it is asked again.
"""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from ekko.ops.broker import Broker
from ekko.ops.doctor.brokers import ABORT_SCAN
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import TopicSpec
from tests.ports import free_port
from tests.waiting import until_true

EKKO = str(Path(sys.executable).with_name("ekko"))
MODEL = ModelDeclaration("ctr", shards=2, tables=(TableDeclaration("embedding", 4),))
REGION = RegionDeclaration("east")
GROUP = "ekko-assigned-by-hand"
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def ekko(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([EKKO, *arguments], capture_output=True, text=True, timeout=180, check=False)


def doctor(bootstrap: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    examined = ekko("doctor", "--bootstrap", bootstrap, *arguments)
    assert not examined.stderr, examined.stderr
    return examined


def findings(examined: "subprocess.CompletedProcess[str]", level: str) -> dict[str, str]:
    """Text -> fix of each finding of a level."""
    lines = examined.stdout.splitlines()
    found = {}
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(level):
            found[line.split(None, 2)[2]] = after.strip().removeprefix("-> ") if after.startswith(" ") else ""
    return found


def declare_all(cluster: KafkaCluster) -> None:
    declare(cluster, Declarations((REGION,), (MODEL,)), lambda _: cluster)


def apply_fix(fix: str) -> None:
    """Run a fix as it is printed."""
    words = shlex.split(fix)
    assert words[0] == "ekko", fix
    done = ekko(*words[1:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker as Kafka comes, with topics made by accident."""
    properties = {ABORT_SCAN: "10000", "auto.create.topics.enable": "true"}
    with Broker(tmp_path_factory.mktemp("sick"), properties=properties) as broker:
        yield broker


def test_a_broker_that_nobody_has_declared_anything_on(sick: Broker) -> None:
    def check() -> None:
        examined = doctor(sick.bootstrap)
        assert examined.returncode == 1
        problems = findings(examined, "problem")
        (scan,) = [text for text in problems if ABORT_SCAN in text]
        assert "up to 12 s instead of 2 s" in scan
        assert f"{ABORT_SCAN}=200" in problems[scan]
        (catalogue,) = [text for text in problems if "ekko.catalogue" in text]
        assert "ekko model apply" in problems[catalogue]
        assert any("auto.create.topics.enable" in text for text in findings(examined, "warning"))

    until_true(check)


def test_its_own_clock_is_compared_with_the_brokers(sick: Broker) -> None:
    with closing(KafkaCluster(sick.bootstrap, timeout_s=60.0)) as cluster:
        declare_all(cluster)

    def check() -> None:
        (clock,) = [text for text in findings(doctor(sick.bootstrap), "ok") if "clock" in text]
        assert "this machine: 0." in clock

    until_true(check)


def test_retention_partitions_and_topics_that_are_gone(sick: Broker) -> None:
    with closing(KafkaCluster(sick.bootstrap, timeout_s=60.0)) as cluster:
        declare_all(cluster)
        until_true(lambda: only_the_scan_is_wrong(sick))

        spoil = ("kafka", "configs", "--bootstrap-server", sick.bootstrap, "--alter", "--entity-type", "topics")
        ekko(*spoil, "--entity-name", "ctr.deltas", "--add-config", "retention.ms=60000")
        ekko(*spoil, "--entity-name", "ekko.catalogue", "--add-config", "cleanup.policy=compact")
        cluster.delete_topics(["ctr.audit", "ctr.signals"])
        cluster.create_topics([TopicSpec("ctr.signals", 3, {"message.timestamp.type": "LogAppendTime"})])
        spoilt, fixes = dict[str, str](), dict[str, str]()

        def check() -> None:
            spoilt.clear()
            spoilt.update(findings(doctor(sick.bootstrap), "problem"))
            assert any("ctr.audit missing" in text for text in spoilt)
            assert any("ctr.signals has 3 partition(s), it must have 1" in text for text in spoilt)
            fixes.clear()
            fixes.update({text: fix for text, fix in spoilt.items() if fix.startswith("ekko kafka configs")})
            assert any("ctr.deltas has retention.ms=60000" in text for text in fixes)
            assert any("ekko.catalogue has cleanup.policy=compact" in text for text in fixes)

        def check_mended() -> None:
            mended = findings(doctor(sick.bootstrap), "problem")
            assert set(spoilt) - set(mended) == set(fixes)

        until_true(check)
        for fix in fixes.values():
            apply_fix(fix)
        until_true(check_mended)


def only_the_scan_is_wrong(broker: Broker) -> None:
    found = findings(doctor(broker.bootstrap), "problem")
    assert [text for text in found if ABORT_SCAN not in text] == []


def test_an_advertised_address_that_does_not_resolve(tmp_path: Path) -> None:
    """CASES 55: the bootstrap address works, and then nothing does."""
    properties = {
        "listeners": "PLAINTEXT://{host}:{port},INTERNAL://127.0.0.1:0,CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": "PLAINTEXT://nohost.invalid:{port},INTERNAL://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
    }

    def check() -> None:
        examined, port = doctor(broker.bootstrap), broker.bootstrap.rpartition(":")[2]
        assert examined.returncode == 1
        assert any(f"{broker.bootstrap} answers" in text for text in findings(examined, "ok"))
        ((text, fix),) = findings(examined, "problem").items()
        assert f"{broker.bootstrap} answers, but sends clients on to nohost.invalid:{port} (broker 1)" in text
        assert "does not resolve" in text
        assert "advertised.listeners of broker 1" in fix
        assert f"127.0.0.1:{port}" in fix

    with Broker(tmp_path, properties=properties) as broker:
        until_true(check)


def test_nobody_listens() -> None:
    examined = doctor(f"127.0.0.1:{free_port()}")
    assert examined.returncode == 1
    ((text, fix),) = findings(examined, "problem").items()
    assert "connection refused" in text
    assert "start the broker" in fix


def test_what_is_no_address_is_said_to_be_none() -> None:
    examined = doctor("kafka-1")
    assert examined.returncode == 1
    assert "is no list of host:port" in examined.stdout


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Broker]:
    """A broker that grants nothing to `carol` that she was not given; `INTERNAL` is the administrator's listener."""
    internal = free_port()
    properties = {
        "listeners": f"CLIENTS://{{host}}:{{port}},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{{controller_port}}",
        "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{PLAIN_LOGIN} user_carol="secret";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    (tmp_path / "ekko.toml").write_text(
        'kafka.security.protocol = "SASL_PLAINTEXT"\nkafka.sasl.mechanism = "PLAIN"\n'
        'kafka.sasl.username = "carol"\nkafka.sasl.password = "secret"\n'
    )
    (tmp_path / "internal").write_text(f"127.0.0.1:{internal}")
    with Broker(tmp_path / "broker", properties=properties) as broker:
        yield broker


def grant(bootstrap: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """To carol; a name that ends with a dot is a prefix."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    pattern = ResourcePatternType.PREFIXED if name.endswith(".") else ResourcePatternType.LITERAL
    allowed = [
        AclBinding(kind, name, pattern, "User:carol", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for future in admin.create_acls(allowed).values():
        future.result(120)


def test_rights_that_are_missing(strict: Broker, tmp_path: Path) -> None:
    internal = (tmp_path / "internal").read_text()
    config = ("--config", str(tmp_path / "ekko.toml"))
    with closing(KafkaCluster(internal, timeout_s=60.0)) as administrator:
        declare_all(administrator)

    def check_reading() -> None:
        ((text, fix),) = findings(doctor(strict.bootstrap, *config), "problem").items()
        assert "catalogue cannot be read" in text
        assert fix.endswith(f"--operation Read --group {GROUP}")

    def check_writing() -> None:
        problems = findings(doctor(strict.bootstrap, *config), "problem")
        (write,) = [text for text in problems if "WRITE" in text]
        assert "ctr." in write
        assert "--operation Write --topic" in problems[write]
        assert [text for text in problems if "READ" in text] == []
        (transactional,) = [text for text in problems if "ransaction" in text]
        assert "--transactional-id ekko." in problems[transactional]

    def check_entitled() -> None:
        entitled = doctor(strict.bootstrap, *config)
        assert entitled.returncode == 0, entitled.stdout
        assert any("may read and write all" in text for text in findings(entitled, "ok"))

    def check_kept_out() -> None:
        kept_out = doctor(strict.bootstrap, "--config", str(wrong))
        assert kept_out.returncode == 1
        assert any("uthentication" in text for text in findings(kept_out, "problem"))

    grant(internal, ResourceType.TOPIC, "*", AclOperation.READ, AclOperation.DESCRIBE)
    until_true(check_reading)
    grant(internal, ResourceType.GROUP, GROUP, AclOperation.READ)
    until_true(check_writing)
    grant(internal, ResourceType.TOPIC, "*", AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)
    grant(internal, ResourceType.TRANSACTIONAL_ID, "ekko.", AclOperation.WRITE)
    grant(internal, ResourceType.BROKER, "kafka-cluster", AclOperation.DESCRIBE_CONFIGS)
    until_true(check_entitled)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text((tmp_path / "ekko.toml").read_text().replace("secret", "guessed"))
    until_true(check_kept_out)
