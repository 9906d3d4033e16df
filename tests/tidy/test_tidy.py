"""The house rules that no linter knows: sizes, where foreign libraries are imported, what may not stand in the tree."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "storage", "streams", "ops")
FILE_LINES = 300
FUNCTION_LINES = 50

ONE_PLACE = {
    "confluent_kafka": r"streams/kafka/",
    "faust": r"streams/monitor/app\.py",
    "rocksdict": r"storage/disk/rocks\.py",
    "fastavro": r"schemas/codec\.py",
}
"""A foreign library is imported in one place, so that it can be replaced and its oddities stand together."""

# Written in pieces, for this file is checked too.
REGISTRY_HOST = re.compile(r"(pypi|pythonhosted|maven|npmjs|crates|golang|debian)" + r"[a-z0-9.-]*\.(org|io|com|net)\b")
MACHINE_PATH = re.compile(r"(?<![\w.$~}>-])/(wor" + r"k|far" + r"m|roo" + r"t|home/\w+|Users/\w+|tm" + r"p/[a-z])\b")
UNFINISHED = re.compile(
    r"pytest\.(mark\.)?(skip|xfail)|skip" + r"if|TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error"
)


def tracked(*patterns: str) -> list[Path]:
    """Files that are, or would be, in a commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_files() -> list[Path]:
    return tracked(*(f"{package}/**/*.py" for package in PACKAGES), *(f"{package}/*.py" for package in PACKAGES))


def matches(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """`file:line: text` of every match in text files."""
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name(path)}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)
        ]
    return found


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def test_there_is_something_to_check() -> None:
    assert len(package_files()) > 10
    assert ROOT / "pyproject.toml" in tracked()


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in tracked("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = {
        f"{name(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in tracked("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


@pytest.mark.parametrize("library", ONE_PLACE)
def test_a_foreign_library_is_imported_in_one_place(library: str) -> None:
    importers = [name(path) for path in package_files() if any(i.split(".")[0] == library for i in imports(path))]
    assert [path for path in importers if not re.match(ONE_PLACE[library], path)] == []


def test_folders_are_imported_by_their_full_name() -> None:
    bare = [f"{name(path)}: {i}" for path in tracked("*.py") for i in imports(path) if i.split(".")[0] in PACKAGES]
    assert bare == []


def test_every_package_is_declared() -> None:
    """A folder that is not listed would be missing from the wheel, though an editable install finds it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent for path in package_files() if path.name == "__init__.py"]
    assert sorted(declared) == sorted("ekko." + name(folder).replace("/", ".") for folder in folders)


def test_no_registry_host_is_named() -> None:
    assert matches(REGISTRY_HOST, tracked()) == []


def test_no_path_of_a_machine_is_named() -> None:
    assert (
        matches(MACHINE_PATH, tracked("*.py", "*.toml", "*.md", "*.yml", "*.yaml", "*.sh", "Makefile", ".ci/run")) == []
    )


def test_nothing_is_skipped_or_left_for_later() -> None:
    assert matches(UNFINISHED, tracked("*.py")) == []
