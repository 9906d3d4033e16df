"""The Dockerfile's steps, run in order in an empty folder: what comes out is complete and runs by itself."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ekko.streams.kafka import KafkaCluster
from tests.ops.dockerfile import Builder, instructions

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    builder = Builder(ROOT, tmp_path_factory.mktemp("image"))
    builder.build(TEXT)
    return builder


def sent_to_the_builder(name: str) -> bool:
    """Whether .dockerignore, a list of exceptions after `*`, lets a path through."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return any(name == line[1:] or name.startswith(f"{line[1:]}/") for line in lines if line.startswith("!"))


def test_all_that_is_copied_is_sent_to_the_builder() -> None:
    copied = [rest.split()[:-1] for keyword, rest in instructions(TEXT) if keyword == "COPY" and "--from" not in rest]
    assert [name for names in copied for name in names if not sent_to_the_builder(name)] == []


def test_the_image_says_how_it_is_run(built: Builder) -> None:
    image = built.image
    assert image.entrypoint == ["ekko"]
    assert image.user.split(":")[0] not in {"", "0", "root"}
    assert built.local(image.environment["EKKO_DATA"]).stat().st_mode & 0o777 == 0o777
    helped = built.run(*image.entrypoint, *image.command)
    assert helped.returncode == 0, helped.stderr
    assert "fanout" in helped.stdout


def test_it_holds_all_requirements_and_no_build_tools(built: Builder) -> None:
    checked = built.run("python", "-m", "pip", "check")
    assert checked.returncode == 0, checked.stdout
    program = "import ekko.streams.monitor.app, ekko.storage.store, ekko.ops.cli; print(ekko.storage.store.__file__)"
    imported = built.run("python", "-c", program)
    assert imported.returncode == 0, imported.stderr
    assert str(built.image.root) in imported.stdout
    assert not built.local("/build").exists()


@pytest.fixture
def broker(built: Builder, tmp_path: Path) -> Iterator[str]:
    """The image's own broker, as a container would start it; its bootstrap address."""
    command = [str(built.local("/opt/ekko/venv/bin/ekko")), "broker", "--data", str(tmp_path / "broker")]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=built.environment(), stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (tmp_path / "log").read_text()
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        log.close()
        process.stdout.close()


def test_kafka_runs_from_it_and_writes_nothing_into_it(
    built: Builder, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = listing(built.local("/opt/ekko"))
    address = request.getfixturevalue("broker")
    assert KafkaCluster(address).topics() == {}
    assert (tmp_path / "log").read_text().count("\n") == 1, "Kafka was prepared anew"
    assert listing(built.local("/opt/ekko")) == before


def listing(folder: Path) -> set[tuple[str, int, int]]:
    """Every file with its size and time of change."""
    found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return {(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}
