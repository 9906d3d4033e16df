"""The command line: every command explains itself with an example, and loads nothing that it does not need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ekko.ops.cli import build
from tests.ports import free_port

EKKO = str(Path(sys.executable).with_name("ekko"))
HEAVY = ("confluent_kafka", "faust", "rocksdict", "fastavro", "numpy", "pydantic", "starlette", "prometheus_client")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([EKKO, *arguments], env=environment, capture_output=True, text=True, timeout=180, check=False)


def commands(command: object, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command with its sub-commands, as words."""
    inner = getattr(command, "commands", None)
    return [found for name, each in inner.items() for found in commands(each, (*words, name))] if inner else [words]


COMMANDS = commands(typer.main.get_command(build()))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(build(), [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Example: ekko {' '.join(words)}" in result.output


def test_help_is_what_the_program_says() -> None:
    result = run("model", "apply", "--help")
    assert result.returncode == 0, result.stderr
    assert "Example: ekko model apply" in result.stdout


@pytest.mark.parametrize("name", ["rewind", "retract"])
def test_a_command_that_is_a_script_as_well_runs_as_one(name: str) -> None:
    script = Path(__file__).parents[2] / "ops" / f"{name}.py"
    result = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    assert f"Example: ekko {name} " in result.stdout


def test_listing_the_commands_loads_nothing_heavy() -> None:
    program = "import sys; from ekko.ops.cli import build; build(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "ekko.ops.commands.broker" in loaded
    assert [library for library in HEAVY if library in loaded] == []


def test_no_arguments_show_the_help() -> None:
    result = run()
    assert "broker" in result.stdout + result.stderr


def test_an_error_of_ours_is_one_line_and_a_hint() -> None:
    result = run("kafka", "nonsense")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("ekko: no such tool of Kafka's: nonsense\n  There are: acls,")


def test_kafkas_own_tools_are_at_hand() -> None:
    result = run("kafka", "topics", "--version")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("4.4.0")


@pytest.mark.parametrize("name", ["rewind", "retract"])
def test_what_the_operator_runs_by_hand_is_a_script_as_well(name: str) -> None:
    result = subprocess.run([sys.executable, f"ops/{name}.py", "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"Example: ekko {name}" in result.stdout


def test_help_texts_are_shown_as_they_stand() -> None:
    """Brackets are no styles: `[rows, dim]` must not be swallowed."""
    for words, text in (
        (("import",), "floating point [rows, dim]."),
        (("model", "apply"), "[[regions]], [[models]] and [[models.tables]]."),
    ):
        assert text in run(*words, "--help", COLUMNS="200").stdout


def test_what_libraries_log_does_not_stand_before_the_error() -> None:
    result = run("model", "list", "--bootstrap", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert result.stderr.startswith("ekko: listing topics failed at 127.0.0.1:"), result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_folders_that_are_not_named_lie_in_that_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ratings.csv").write_text("u,i,t,l\na,b,1,1\n")
    columns = "user=u,item=i,time=t,label=l"
    for words in (("broker",), ("demo", "--data", str(tmp_path / "ratings.csv"), "--columns", columns)):
        result = run(*words, EKKO_DATA=str(tmp_path / "file"))
        assert f"file/{words[0]} cannot be used as a data folder" in result.stderr


def test_a_rollback_that_is_not_acknowledged_is_no_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.ops.rollback.run", lambda *_: False)
    assert CliRunner().invoke(build(), ["rollback", "ctr"]).exit_code == 3
    assert CliRunner().invoke(build(), ["rollback", "ctr", "--to", "minus one"]).exit_code == 2
