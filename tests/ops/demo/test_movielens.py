"""MovieLens: fetched by package name, checked, and cleaned of what real files hold."""

import sys
from pathlib import Path

import pytest

from ekko.ops.demo import movielens
from ekko.ops.demo.features import feature_key
from ekko.ops.demo.movielens import DatasetUnavailable, fetch_wheel, parse_movielens

USERS = (
    "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\twriter\t02136-1516\n2\t\tF\tother\t\n"
)
ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "7\tGood, the Bad and the Ugly, The\t1966\tWestern War\n8\tunkonwn\tunkonwn\tunknown\n"
)
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def parse(ratings: str):
    return parse_movielens(USERS, ITEMS, HEADER + ratings)


def test_interactions_come_in_time_order_and_ties_keep_the_files_order():
    parsed = parse("1\t7\t5\t300\n2\t7\t3\t100\n1\t8\t4\t100\n")
    assert parsed.timestamps.tolist() == [100, 100, 300]
    assert parsed.labels.tolist() == [0, 1, 1]


def test_features_of_user_and_item_are_in_the_row():
    parsed = parse("1\t7\t5\t300\n")
    present = set(parsed.keys[0, parsed.values[0] != 0].tolist())
    expected = [("bias", ""), ("user", "1"), ("age", "2"), ("gender", "M"), ("occupation", "writer"), ("region", "0")]
    expected += [("item", "7"), ("year", "393"), ("genre", "Western"), ("genre", "War")]
    assert present == {feature_key(*feature) for feature in expected}


def test_missing_values_make_no_feature():
    parsed = parse("2\t8\t5\t300\n")
    present = set(parsed.keys[0, parsed.values[0] != 0].tolist())
    assert present == {
        feature_key(*f) for f in [("bias", ""), ("user", "2"), ("gender", "F"), ("occupation", "other"), ("item", "8")]
    }
    assert parsed.dropped["year of release not a number"] == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1\t7\tfive\t300", "rating or time not a number"),
        ("1\t7\tnan\t300", "rating or time out of range"),
        ("1\t7\t-1\t300", "rating or time out of range"),
        ("1\t7\t5\t-1", "rating or time out of range"),
        ("1\t7\t5", "malformed record"),
        ("\t7\t5\t300", "malformed record"),
        ("9\t7\t5\t300", "rating of an unknown user or item"),
        ("1\t9\t5\t300", "rating of an unknown user or item"),
        ("2\t7\t5\t900", "item rated again by the same user"),
    ],
)
def test_dirty_records_are_counted_and_left_out(line: str, reason: str):
    parsed = parse(f"2\t7\t3\t100\n{line}\n")
    assert len(parsed) == 1
    assert parsed.labels.tolist() == [0]
    assert parsed.dropped[reason] == 1


def test_nothing_usable_is_said_so():
    with pytest.raises(DatasetUnavailable, match="no usable rating"):
        parse("1\t7\tfive\t300\n")


def test_a_download_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 30\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    with pytest.raises(DatasetUnavailable, match=r"longer than 0 s"):
        fetch_wheel(tmp_path / "cache", timeout=0.2)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_refused_download_names_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(DatasetUnavailable, match=r"could not download recbole==1\.2\.1: ERROR"):
        fetch_wheel(tmp_path, timeout=60)


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path):
    (tmp_path / movielens.WHEEL).write_bytes(b"something else")
    with pytest.raises(DatasetUnavailable, match="SHA-256"):
        fetch_wheel(tmp_path, timeout=1)


def test_a_wheel_without_the_data_is_refused(tmp_path: Path):
    (tmp_path / "x.whl").write_bytes(b"no zip")
    with pytest.raises(DatasetUnavailable, match="does not hold MovieLens"):
        movielens.read_movielens(tmp_path / "x.whl")
