"""Settings: file under environment under flags, and errors that name the setting."""

from pathlib import Path

import pytest

from ekko.ops.process import region_address
from ekko.ops.settings import ClusterAddress, RegionSettings, Settings, load
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.streams.fanout import Scored

FILE = """
bootstrap = "central:9092"

[kafka]
security.protocol = "SASL_SSL"
"ssl.ca.location" = "central.pem"
enable.ssl.certificate.verification = true
socket.timeout.ms = 5000

[region.east]
bootstrap = "east:9092"
bulk_max_age_s = 2

[region.east.kafka]
ssl.ca.location = "east.pem"

[region.west.kafka]
client.id = "west"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ekko.toml"
    path.write_text(FILE)
    return path


def test_librdkafka_settings_keep_their_names_and_become_strings(file: Path) -> None:
    assert load(file).central() == ClusterAddress(
        "central:9092",
        {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": "central.pem",
            "enable.ssl.certificate.verification": "true",
            "socket.timeout.ms": "5000",
        },
    )


def test_a_region_with_a_cluster_of_its_own_inherits_no_credentials(file: Path) -> None:
    assert load(file).regional("east") == ClusterAddress("east:9092", {"ssl.ca.location": "east.pem"})


def test_neither_does_one_whose_cluster_is_declared_in_the_catalogue(file: Path) -> None:
    declared = RegionDeclaration("west", "west:9092")
    assert region_address(load(file), declared) == ClusterAddress("west:9092", {"client.id": "west"})
    settings_first = RegionDeclaration("east", "elsewhere:9092")
    assert region_address(load(file), settings_first).bootstrap == "east:9092"


def test_a_region_without_one_is_on_the_central_cluster(file: Path) -> None:
    west = load(file).regional("west")
    assert west.bootstrap == "central:9092"
    assert west.kafka["client.id"] == "west"
    assert west.kafka["security.protocol"] == "SASL_SSL"
    assert load(file).regional("unheard-of") == load(file).central()


def test_environment_beats_file_and_flags_beat_both(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKKO_BOOTSTRAP", "environment:1")
    monkeypatch.setenv("EKKO_REGION__EAST__BOOTSTRAP", "environment:2")
    assert load(file).bootstrap == "environment:1"
    assert load(file).regional("east").bootstrap == "environment:2"
    assert load(file).of_region("east").bulk_max_age_s == 2.0, "the file's other values stay"
    assert load(file, bootstrap="flag:3").bootstrap == "flag:3"
    assert load(file, bootstrap=None).bootstrap == "environment:1", "a flag that was not given decides nothing"


def test_the_file_is_found_by_variable_and_by_name(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load().bootstrap == "127.0.0.1:9092"
    monkeypatch.setenv("EKKO_CONFIG", str(file))
    assert load().bootstrap == "central:9092"
    monkeypatch.delenv("EKKO_CONFIG")
    monkeypatch.chdir(tmp_path)
    assert load().bootstrap == "central:9092"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no such settings file: .*absent\.toml"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bootstrapp = 'x'", "bootstrapp: Extra inputs"),
        ("[region.east]\nbulk_max_age_s = -1", r"region\.east\.bulk_max_age_s: Input should be greater than 0"),
        ("[region.east]\nbandwith = 1", r"region\.east\.bandwith: Extra inputs"),
        ("[region.east]\nscore = 'no colon'", r"region\.east\.score"),
        ("bootstrap = unquoted", "is not TOML: .*line 1"),
        ("epoch_interval_s = inf", "epoch_interval_s: Input should be a finite number"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ekko.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(path)
    assert caught.value.hint


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ekko.toml"
    path.write_bytes(b"bootstrap = '\xff'")
    with pytest.raises(ConfigurationError, match=r"ekko\.toml is not TOML: .*0xff"):
        load(path)


def test_the_guides_file_is_read_as_it_stands(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "operating.md"
    path = tmp_path / "ekko.toml"
    path.write_text(page.read_text().split("```toml\n")[1].split("```")[0])
    told = load(path)
    assert told.regional("east").kafka == {"security.protocol": "SSL", "ssl.ca.location": "/etc/ssl/east.pem"}
    left_out = {**Settings.model_fields, **RegionSettings.model_fields}.keys() - {*told.model_fields_set}
    assert left_out - told.of_region("east").model_fields_set == set(), "every setting stands in the guide"


def test_what_a_score_of_ones_own_takes_is_found_where_the_guide_says() -> None:
    assert Scored.__name__ == "Scored"
    assert "`ekko.streams.fanout.Scored`" in (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


def test_defaults_are_those_of_the_design() -> None:
    region = RegionSettings()
    assert (load().epoch_interval_s, region.bulk_max_age_s, region.express_percentile) == (30.0, 1.0, 99.0)
    assert region.bandwidth_bytes_per_s is None
