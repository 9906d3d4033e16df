"""What README and the guides of trainers and serving tell people to type, run as it stands on real processes."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import EkkoError
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import to_float
from ekko.storage.client import StoreClient
from ekko.streams.catalogue import Catalogue
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TRAINER_GUIDE = ROOT / "docs" / "trainer.md"
SERVING_GUIDE = ROOT / "docs" / "serving.md"
EKKO = str(Path(sys.executable).with_name("ekko"))
PORT_IN_README = "7070"


def snippet(name: str, page: Path = README) -> str:
    """The code block of the page whose first line is `# name`."""
    found = re.findall(rf"^```\w+\n(# {re.escape(name)}\n.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{page.name} must have one code block that begins '# {name}'"
    return str(found[0])


def statements(code: str) -> int:
    """Lines that do something: no comments, no blank lines."""
    return sum(1 for line in code.splitlines() if line.strip() and not line.strip().startswith("#"))


@dataclass(frozen=True)
class Reader:
    """What one run of the README's processes left to look at."""

    folder: Path
    environment: dict[str, str]
    address: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=180, check=False
        )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Broker, manager, fan-out and store, started by the commands of the README; files laid beside them."""
    folder, port = tmp_path_factory.mktemp("quickstart"), str(free_port())
    pages = dict.fromkeys(("model.toml", "trainer.py", "reader.py"), README)
    pages |= dict.fromkeys(("exactly_once.py", "rollback.py"), TRAINER_GUIDE)
    pages["serving.py"] = SERVING_GUIDE
    for name, page in pages.items():
        (folder / name).write_text(snippet(name, page).replace(f":{PORT_IN_README}", f":{port}"))
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        reader = Reader(folder, {**os.environ, "EKKO_BOOTSTRAP": broker.bootstrap}, f"127.0.0.1:{port}")
        applied = reader.run(EKKO, *command("model apply"))
        assert applied.returncode == 0, applied.stderr
        for words in ("manager", "fanout", "store"):
            arguments = [word.replace(PORT_IN_README, port).replace("DIR", "store") for word in command(words)]
            log = stack.enter_context((folder / f"{words}.log").open("wb"))
            process = subprocess.Popen(
                [EKKO, *arguments], cwd=folder, env=reader.environment, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(stop, process)
        yield reader


def command(words: str) -> list[str]:
    """The arguments of the first command in the README's prose that begins `ekko words`."""
    found = re.search(rf"`ekko ({re.escape(words)}[^`]*)`", README.read_text())
    assert found, f"README.md no longer says `ekko {words} ...`"
    return found[1].split()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)


def eventually(what: str, look: Callable[[], bool]) -> None:
    """Until it is so; a store that does not answer in time is asked again, as whoever reads the page would."""

    def looked() -> bool:
        with suppress(EkkoError):
            return look()
        return False

    wait_for(looked, what=what)


def ended_well(run: Callable[[], subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """The run of a script that ended with 0: its client waits a second for a store, and a busy one takes longer."""
    done: list[subprocess.CompletedProcess[str]] = []
    eventually("it ends well", lambda: done.append(run()) or done[-1].returncode == 0)
    return done[-1]


def test_the_snippets_are_as_short_as_they_say() -> None:
    assert statements(snippet("trainer.py")) <= 10
    assert statements(snippet("reader.py")) <= 5


def test_the_reader_sees_what_the_trainer_published(quickstart: Reader) -> None:
    trainer = quickstart.run(sys.executable, "trainer.py")
    assert trainer.returncode == 0, trainer.stderr

    def all_found() -> bool:
        reader = quickstart.run(sys.executable, "reader.py")
        return reader.returncode == 0 and reader.stdout == "(3, 16) [ True  True  True]\n"

    eventually("reader.py finds the rows", all_found)
    check_every_row(quickstart)


def test_the_exactly_once_trainer_goes_on_where_it_was(quickstart: Reader) -> None:
    first, second = (quickstart.run(sys.executable, "exactly_once.py") for _ in range(2))
    assert (first.stdout, second.stdout) == ("0 b'5'\n", "5 b'10'\n"), first.stderr + second.stderr


def test_the_trainer_that_heeds_rollbacks_runs(quickstart: Reader) -> None:
    assert ended_well(lambda: quickstart.run(sys.executable, "rollback.py")).stdout == "0\n"
    check_every_row(quickstart)


def test_serving_tells_how_good_it_was(quickstart: Reader) -> None:
    def told() -> bool:
        result = quickstart.run(sys.executable, "serving.py")
        return result.stdout == "True 0\n"

    eventually("the store takes what serving tells", told)
    with closing(KafkaCluster(quickstart.environment["EKKO_BOOTSTRAP"])) as cluster:

        def cohorts() -> set[tuple[str, str]]:
            signals = [Codec().decode(record.value) for record in read_all(cluster, topics.signals("ctr"))]
            return {(signal.metric, signal.cohort) for signal in signals if signal.source.startswith("serving/")}

        expected = {("log_loss", "live"), ("log_loss", "baseline"), ("requests", "live")}
        eventually("both cohorts are in the signals", lambda: cohorts() == expected)


def check_every_row(quickstart: Reader) -> None:
    """Every row served is its initialiser plus the sum of what stands in the raw source log, bit for bit."""
    with (
        closing(KafkaCluster(quickstart.environment["EKKO_BOOTSTRAP"])) as cluster,
        closing(StoreClient("east", "ctr", stores=[quickstart.address], timeout_s=30.0)) as client,
    ):
        table = model_in(cluster).table("embedding")

        def all_equal() -> bool:
            sums = sums_in(cluster)  # read anew: a barrier that is being written hides what comes after it
            keys = np.array(sorted(sums), np.uint64)
            assert len(keys) > 800
            stored = initial_rows(table, keys) + np.array([sums[int(key)] for key in keys])
            rows = client.lookup("embedding", keys)
            return bool(rows.found.all() and np.array_equal(rows.values, to_float(stored, table.fraction_bits)))

        eventually("every row is there", all_equal)


def sums_in(cluster: KafkaCluster) -> dict[int, np.ndarray]:
    sums: dict[int, np.ndarray] = {}
    for record in read_all(cluster, topics.deltas("ctr")):
        block = Codec().decode(record.value)
        if isinstance(block, DeltaBlock):
            for key, delta in zip(block.keys.tolist(), block.deltas, strict=True):
                sums[key] = sums.get(key, np.zeros(16, np.int32)) + delta
    return sums


def model_in(cluster: KafkaCluster) -> ModelDeclaration:
    with closing(Catalogue(cluster)) as catalogue:
        catalogue.refresh()
        return catalogue.model("ctr")
