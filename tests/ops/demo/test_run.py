"""Before anything starts: the folder and the plan."""

from pathlib import Path

import pytest

from ekko.ops.demo.plan import BATCH, FILE, RATE, DemoPlan, batch_size
from ekko.ops.demo.processes import data_plane
from ekko.ops.demo.run import empty_folder, make_plan
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions
from ekko.schemas.errors import ConfigurationError

STREAM = synthetic_interactions(1, SyntheticShape(interactions=30_000, users=20, items=20, periods=2))


def test_an_earlier_run_is_cleared_and_a_new_folder_made(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    empty_folder(folder)
    (folder / FILE).write_text("{}")
    (folder / "rest").mkdir()
    empty_folder(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigurationError, match="not of an earlier demo"):
        empty_folder(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_plan_is_read_back_and_names_distinct_ports(tmp_path: Path):
    plan = make_plan(tmp_path, STREAM, seconds=10)
    plan.write()
    assert DemoPlan.read(tmp_path) == plan
    ports = {plan.bootstrap, f"127.0.0.1:{plan.monitor_port}", *plan.stores.values()}
    assert len(ports) == 2 + len(plan.stores)


def test_a_long_run_replays_more_slowly_so_that_the_stream_lasts(tmp_path: Path):
    assert make_plan(tmp_path, STREAM, seconds=10).rate == RATE
    assert make_plan(tmp_path, STREAM, seconds=120).rate == 262.5, "it ends a little before the time is over"


def test_a_short_stream_is_learnt_in_small_steps(tmp_path: Path):
    short = synthetic_interactions(1, SyntheticShape(interactions=200, users=20, items=20, periods=2))
    assert make_plan(tmp_path, STREAM, seconds=10).batch == BATCH
    assert make_plan(tmp_path, short, seconds=10).batch == 4
    assert batch_size(1) == 1


def test_every_region_has_a_fanout_and_a_store(tmp_path: Path):
    names = [spec.name for spec in data_plane(make_plan(tmp_path, STREAM, seconds=10))]
    assert names == ["manager", "monitor", "fanout-east", "store-east", "fanout-west", "store-west"]


def test_a_folder_without_a_plan_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"demo\.json cannot be read: No such file") as caught:
        DemoPlan.read(tmp_path)
    assert "ekko demo-part setup" in caught.value.hint
