"""What the broker is made of: jars are checked byte by byte, and what was prepared for another Java is not used."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ekko.ops.broker import BrokerError, distribution, jars, java


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own whose note says that everything is there."""
    ready = (distribution.home() / "ready.json").read_text()
    monkeypatch.setenv("EKKO_CACHE", str(tmp_path))
    distribution.home().mkdir(parents=True)
    (distribution.home() / "ready.json").write_text(ready)
    return distribution.home()


def test_the_list_is_whole() -> None:
    pinned = jars.pinned()
    assert len({jar.filename for jar in pinned}) == len(pinned) == 47
    assert all(len(jar.sha256) == 64 for jar in pinned)
    kafka = {jar.version for jar in pinned if jar.group == "org.apache.kafka"}
    assert kafka == {jars.KAFKA_VERSION}


def test_every_installed_jar_has_the_pinned_bytes() -> None:
    assert jars.missing(distribution.home() / "libs") == []


def test_an_altered_or_absent_jar_is_found(tmp_path: Path) -> None:
    libs = tmp_path / "libs"
    shutil.copytree(distribution.home() / "libs", libs)
    altered, absent = jars.pinned()[0], jars.pinned()[-1]
    with (libs / altered.filename).open("ab") as handle:
        handle.write(b"x")
    (libs / absent.filename).unlink()
    assert jars.missing(libs) == [altered.filename, absent.filename]


def test_the_note_of_a_preparation_is_taken(copy: Path) -> None:
    assert distribution.load().home == copy


@pytest.mark.parametrize(
    ("key", "value"), [("identity", "another build"), ("machine", "another/java"), ("java", "gone/bin/java")]
)
def test_another_java_needs_another_preparation(copy: Path, key: str, value: str) -> None:
    note = json.loads((copy / "ready.json").read_text())
    (copy / "ready.json").write_text(json.dumps({**note, key: value}))
    with pytest.raises(BrokerError, match="Java has changed"):
        distribution.load()


def test_a_cut_off_note_is_no_note(copy: Path) -> None:
    (copy / "ready.json").write_text('{"java": ')
    with pytest.raises(BrokerError, match="not prepared"):
        distribution.load()


def test_java_home_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home/bin/java", "path/java"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path") + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java.find() == tmp_path / "path/java"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    found = java.find()
    assert found == tmp_path / "home/bin/java"
    assert java.probe(found) == java.Java(found, 11)
    assert java.probe(tmp_path / "absent") is None


def test_no_road_to_the_jars_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Maven on PATH, and a Python registry that refuses connections."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in {
        "INDEX_URL": "http://127.0.0.1:1/simple",
        "FIND_LINKS": "",
        "RETRIES": "0",
        "NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    said: list[str] = []
    with pytest.raises(BrokerError, match=r"left 47 absent or altered, .* jgo could not be installed") as caught:
        jars.fetch(tmp_path / "libs", said.append)
    assert "PIP_INDEX_URL" in caught.value.hint
    assert said == ["Kafka 4.4.0: 47 jars (44 MB) through jgo (Maven's repository without Maven)"]
