"""`ekko model` and `ekko region` as a user runs them, against a real broker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.streams.kafka import KafkaCluster

EKKO = str(Path(sys.executable).with_name("ekko"))
FILE = """
[[regions]]
name = "{region}"

[[models]]
name = "{model}"
shards = {shards}

[[models.tables]]
name = "users"
dim = 16
initializer = "uniform"
scale = 0.01
"""


class Shell:
    """Runs `ekko` against one broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def __call__(self, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        command = [EKKO, *words, "--bootstrap", self.bootstrap]
        return subprocess.run(command, input=answer, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def ekko(broker: Broker) -> Shell:
    return Shell(broker.bootstrap)


@pytest.fixture
def names(topic_prefix: str) -> dict[str, str]:
    return {"model": f"m-{topic_prefix}"[:60], "region": f"r-{topic_prefix}"[:60]}


def test_apply_list_and_delete(ekko: Shell, kafka: KafkaCluster, names: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text(FILE.format(shards=2, **names))
    first = ekko("model", "apply", str(file))
    assert first.returncode == 0, first.stderr
    assert f"model {names['model']} created with table users (dim 16)" in first.stdout
    assert ekko("model", "apply", str(file)).stdout == "nothing to do\n"

    listed = ekko("model", "list", "--json")
    found = {entry["name"]: entry for entry in map(json.loads, listed.stdout.splitlines())}
    assert found[names["model"]]["shards"] == 2
    assert found[names["model"]]["tables"][0]["dim"] == 16
    assert names["region"] in found
    table = ekko("model", "list").stdout
    assert "uniform ±0.01, seed 0" in table
    assert "central" in table

    settings = tmp_path / "ekko.toml"
    settings.write_text(f'[region.{names["region"]}]\nbootstrap = "elsewhere:9092"\n')
    differing = ekko("model", "apply", str(file), "--config", str(settings))
    assert differing.returncode == 1
    assert 'add bootstrap = "elsewhere:9092"' in differing.stderr

    file.write_text(FILE.format(shards=3, **names))
    refused = ekko("model", "apply", str(file))
    assert refused.returncode == 1
    assert "shards is 2 and cannot become 3" in refused.stderr
    assert f"ekko model delete {names['model']}" in refused.stderr
    assert "Traceback" not in refused.stderr

    kept = ekko("model", "delete", names["model"], answer="n\n")
    assert kept.returncode == 1
    assert f"{names['model']}.deltas" in kafka.topics()
    gone = ekko("model", "delete", names["model"], answer="y\n")
    assert gone.returncode == 0, gone.stderr
    assert f"model {names['model']} deleted" in gone.stdout
    assert not [topic for topic in kafka.topics() if topic.startswith(f"{names['model']}.")]
    assert ekko("model", "delete", names["model"], "--yes").stdout == "nothing to do\n"

    region = ekko("region", "remove", names["region"], "--yes")
    assert f"region {names['region']} deleted" in region.stdout
    assert names["region"] not in ekko("region", "list").stdout


def test_mistakes_are_told_in_one_line_with_a_hint(ekko: Shell, kafka: KafkaCluster, tmp_path: Path) -> None:
    del kafka
    file = tmp_path / "model.toml"
    file.write_text('[[models]]\nname = "ctr"\nshard = 2\n')
    for result, told in (
        (ekko("model", "apply", str(file)), "models[0].shard: Extra inputs"),
        (ekko("model", "apply", str(tmp_path / "none.toml")), "none.toml cannot be read"),
        (ekko("model", "delete", "no-such-model", "--yes"), "model 'no-such-model' is not in the catalogue"),
        (Shell("127.0.0.1:1")("model", "list"), "127.0.0.1:1"),
    ):
        assert result.returncode == 1
        assert told in result.stderr
        assert "Traceback" not in result.stderr
