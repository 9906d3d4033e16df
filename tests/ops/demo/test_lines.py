"""The line of progress: only what is known."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from ekko.ops.demo import view
from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.supervisor import Supervisor


def line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(view, "LINE_EVERY_S", 0.0)
    plan = DemoPlan(
        folder=folder, bootstrap="127.0.0.1:1", model="movies", stores={}, monitor_port=0, rate=1.0, seconds=1.0
    )
    written = io.StringIO()
    view.Lines(Console(file=written, width=200)).watch(plan, Supervisor(folder / "logs"))
    return written.getvalue().strip()


def test_before_the_first_interaction_there_are_no_empty_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert line(tmp_path, monkeypatch) == "0 interactions; restarts: 0"
