"""The wheel holds what an editable install finds in the folders: modules, Avro files, resources, typing marks."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "storage", "streams", "ops")


def committed(*patterns: str) -> list[str]:
    """Names of files that are, or would be, in a commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({name for name in listed if (ROOT / name).is_file()})


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy of the tree (a build leaves files in the tree that it builds)."""
    copy = tmp_path_factory.mktemp("tree")
    for name in committed():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = (copy / "dist").glob("ekko_kafka-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_the_wheel(contents: set[str], package: str) -> None:
    expected = {f"ekko/{name}" for name in committed(package)}
    assert expected - contents == set()


def test_nothing_else_is_in_the_wheel(contents: set[str]) -> None:
    foreign = {
        name
        for name in contents
        if not name.startswith(("ekko/schemas/", "ekko/storage/", "ekko/streams/", "ekko/ops/"))
    }
    assert {name.split("/")[0].split("-")[0] for name in foreign} == {"ekko_kafka"}
