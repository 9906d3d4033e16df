"""`ekko import` and `ekko export` on a whole deployment of real processes: the same bits again, whatever is killed."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import round_to_nearest
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher
from tests.ops.deployment import EKKO, Deployment
from tests.ops.interrupted import CHUNK, await_killed, interrupted
from tests.streams.visible import await_visible

TABLE = TableDeclaration("embedding", 8, initializer="uniform", scale=0.01, seed=7)
COUNT = 20_000


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE, regions=1) as running:
        yield running


def trained() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    keys = rng.permutation(np.arange(COUNT, dtype=np.uint64) * np.uint64(97))
    return keys, rng.normal(0, 0.1, (COUNT, 8)).astype(np.float32)


def blocks(kafka: KafkaCluster, model: str, purpose: Purpose) -> list[DeltaBlock]:
    await_visible(kafka, topics.deltas(model))
    decoded = [Codec().decode(record.value) for record in read_all(kafka, topics.deltas(model))]
    return [block for block in decoded if isinstance(block, DeltaBlock) and block.purpose is purpose]


def rows_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        order = np.argsort(arrays["keys"])
        return {name: arrays[name][order] for name in ("keys", "rows")}


def same(one: Path, other: Path) -> bool:
    left, right = rows_of(one), rows_of(other)
    return all(np.array_equal(left[name], right[name]) for name in left)


def empty_model(deployment: Deployment) -> str:
    """Another model of the same table, served by the same processes."""
    name = f"{deployment.model.name[:50]}-two"
    model = ModelDeclaration(name, shards=5, tables=(TABLE,))
    declare(deployment.kafka, Declarations((), (model,)), lambda _: deployment.kafka)
    return name


def export(deployment: Deployment, model: str, folder: str, rows: int) -> Path:
    """Export once a complete state holds that many rows."""
    address = deployment.addresses[deployment.regions[0]]
    out = deployment.folder / folder

    def done() -> bool:
        ran = deployment.ekko("export", model, "--store", address, "--out", str(out), check=False)
        return ran.returncode == 0 and f": {rows} rows" in ran.stdout

    deployment.wait(f"an export of {rows} rows", done)
    return out / "embedding.npz"


def test_what_is_exported_is_imported_to_the_same_bits(deployment: Deployment) -> None:
    keys, values = trained()
    np.savez(deployment.folder / "embedding.npz", keys=keys, values=values)
    name = deployment.model.name
    done = deployment.ekko("import", name, str(deployment.folder / "embedding.npz"))
    assert f"{COUNT} rows published" in done.stdout
    first = export(deployment, name, "first", COUNT)
    found = rows_of(first)
    order = np.argsort(keys)
    assert np.array_equal(found["keys"], keys[order])
    expected = round_to_nearest(values, 24) - initial_rows(TABLE, keys)
    assert np.array_equal(found["rows"], expected[order])

    other = empty_model(deployment)
    deployment.ekko("import", other, str(first))
    assert same(export(deployment, other, "second", COUNT), first), "into an empty model"
    assert "nothing is left" in deployment.ekko("import", other, str(first)).stdout, "again changes nothing"


def test_an_export_takes_the_place_of_what_is_there(deployment: Deployment) -> None:
    keys, values = trained()
    name = deployment.model.name
    np.savez(deployment.folder / "embedding.npz", keys=keys, values=values)
    deployment.ekko("import", name, str(deployment.folder / "embedding.npz"))
    first = export(deployment, name, "first", COUNT)
    with Publisher(name, cluster=deployment.kafka, trainer="t") as publisher:
        publisher.publish("embedding", keys[:1000], np.ones((1000, 8), np.float32))
    refused = deployment.ekko("import", name, str(first), check=False)
    assert refused.returncode == 1
    assert "is not empty: 2 trainer(s) or imports have published into it" in refused.stderr
    replaced = deployment.ekko("import", name, str(first), "--replace", "--region", deployment.regions[0])
    assert "1000 rows published" in replaced.stdout, "only what differs"
    deployment.wait_exact("the replaced rows are there")
    deployment.wait_healthy()
    assert same(export(deployment, name, "third", COUNT), first), "into the same model"


def test_an_export_as_of_a_state_leaves_out_what_came_later(deployment: Deployment) -> None:
    address = deployment.addresses[deployment.regions[0]]
    with Publisher(deployment.model.name, cluster=deployment.kafka, trainer="t") as publisher:
        publisher.publish("embedding", np.arange(100), np.full((100, 8), 0.5, np.float32))
        publisher.flush(120)
        state = deployment.wait_healthy()
        publisher.publish("embedding", np.arange(50, 200), np.full((150, 8), 0.5, np.float32))
    deployment.wait_exact("all is there")
    out = deployment.folder / "out"
    command = ("export", deployment.model.name, "--store", address, "--out", str(out), "--as-of", str(state))
    deployment.ekko(*command)
    found = rows_of(out / "embedding.npz")
    assert np.array_equal(found["keys"], np.arange(100))
    assert (found["rows"] == 1 << 23).all()
    deployment.ekko(*command, "--float32", "--format", "parquet")
    later = deployment.ekko(*command[:-1], "1000000", check=False)
    assert later.returncode == 1
    assert "complete at state" in later.stderr


def test_an_import_killed_again_and_again_ends_as_if_it_had_not_been(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Thirty chunks; kill -9 after some were committed, twice; the log then holds every row exactly once."""
    table = TableDeclaration("embedding", 64)
    model = ModelDeclaration(topic_prefix[:55], shards=3, tables=(table,))
    declare(kafka, Declarations((RegionDeclaration(f"{topic_prefix[:50]}-r"),), (model,)), lambda _: kafka)
    keys = np.arange(240_000, dtype=np.uint64)
    values = np.random.default_rng(2).normal(0, 1, (len(keys), 64)).astype(np.float32)
    np.savez(tmp_path / "embedding.npz", keys=keys, values=values)
    command = ["import", model.name, str(tmp_path / "embedding.npz"), "--bootstrap", broker.bootstrap]
    for _ in range(2):
        await_killed(interrupted(signal.SIGKILL, CHUNK, 2, *command))
    done = subprocess.run([*EKKO, *command], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows published" in done.stdout
    assert f"{len(keys)} rows published" not in done.stdout, "it went on where it was"
    published = blocks(kafka, model.name, Purpose.IMPORT)
    sent = np.concatenate([block.keys for block in published])
    order = np.argsort(sent)
    assert np.array_equal(sent[order], keys), "every row once"
    rows = np.concatenate([block.deltas for block in published])[order]
    assert np.array_equal(rows, round_to_nearest(values, 24))
    await_visible(kafka, topics.audit(model.name))
    entries = [Codec().decode(record.value) for record in read_all(kafka, topics.audit(model.name))]
    assert [entry.action for entry in entries if isinstance(entry, AuditEntry)] == ["import"]


def test_nothing_is_published_of_a_file_with_a_bad_value(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    model = ModelDeclaration(topic_prefix[:55], shards=3, tables=(TABLE,))
    declare(kafka, Declarations((), (model,)), lambda _: kafka)
    values = np.zeros((200_000, 8), np.float32)
    values[199_999, 3] = np.nan
    np.savez(tmp_path / "weights.npz", values=values)
    command = [*EKKO, "import", model.name, str(tmp_path / "weights.npz"), "--bootstrap", broker.bootstrap]
    done = subprocess.run([*command, "--table", "embedding"], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert "key 199999, column 3: nan" in done.stderr
    assert read_all(kafka, topics.deltas(model.name)) == []
    unknown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert "has no table 'weights'" in unknown.stderr
