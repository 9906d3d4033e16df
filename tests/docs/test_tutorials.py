"""What docs/tutorials tells people to type, run as it stands on real processes."""

import importlib.util
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from ekko.ops.broker import Broker
from ekko.schemas.errors import EkkoError
from ekko.storage.client import StoreClient
from tests.docs.test_readme import (
    EKKO,
    PORT_IN_README,
    ROOT,
    Reader,
    check_every_row,
    ended_well,
    eventually,
    quickstart,
    snippet,
    stop,
)
from tests.ports import free_port

__all__ = ["quickstart"]  # a fixture: the README's processes

TRAINER = ROOT / "docs" / "tutorials" / "trainer.md"
TWO_REGIONS = ROOT / "docs" / "tutorials" / "two-regions.md"


def run(reader: Reader, name: str) -> subprocess.CompletedProcess[str]:
    code = snippet(name, TRAINER).replace(f"127.0.0.1:{PORT_IN_README}", reader.address)
    (reader.folder / name).write_text(code)
    return reader.run(sys.executable, name)


def test_the_trainers_run(quickstart: Reader) -> None:
    done = ended_well(lambda: run(quickstart, "numpy_trainer.py"))
    assert done.stdout == "published True finite True\n", done.stderr
    trained = quickstart.run(sys.executable, "trainer.py")  # enough rows for the check, whoever ran before
    assert trained.returncode == 0, trained.stderr
    check_every_row(quickstart)
    if importlib.util.find_spec("torch"):
        done = ended_well(lambda: run(quickstart, "torch_trainer.py"))
        assert done.stdout.startswith("published "), "the PyTorch part"
    else:
        compile(snippet("torch_trainer.py", TRAINER), "torch_trainer.py", "exec")


def is_ready(address: str) -> bool:
    try:
        with StoreClient("east", "ctr", stores=[address]) as client:
            client.state()
    except EkkoError:
        return False
    return True


def test_both_regions_serve_the_same_bits(tmp_path: Path) -> None:
    fresh = {"7070": str(free_port()), "7071": str(free_port())}

    def with_ports(text: str) -> str:
        for written, free in fresh.items():
            text = text.replace(written, free)
        return text

    for name in ("regions.toml", "both.py"):
        (tmp_path / name).write_text(with_ports(snippet(name, TWO_REGIONS)))
    page = TWO_REGIONS.read_text()
    commands = page.split("```\n# processes\n")[1].split("```")[0].splitlines()
    assert len(commands) == 5
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "broker"))
        reader = Reader(tmp_path, {**os.environ, "EKKO_BOOTSTRAP": broker.bootstrap}, "")
        applied = reader.run(EKKO, "model", "apply", "regions.toml")
        assert applied.returncode == 0, applied.stderr
        for number, command in enumerate(commands):
            log = stack.enter_context((tmp_path / f"{number}.log").open("wb"))
            arguments = [EKKO, *with_ports(command).split()[1:]]
            process = subprocess.Popen(
                arguments, cwd=tmp_path, env=reader.environment, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(stop, process)
        for region, port in zip(("east", "west"), fresh.values(), strict=True):
            eventually(f"the store of {region} is ready", lambda at=f"127.0.0.1:{port}": is_ready(at))
        done = reader.run(sys.executable, "both.py")
        assert done.returncode == 0, done.stderr
        east, west = (line.split() for line in done.stdout.splitlines())
        assert (east[:2], west[:2]) == (["east", "0.25"], ["west", "0.25"])
        assert east[2] == west[2]
