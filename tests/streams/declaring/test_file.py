"""The declaration file: what it says, and where it is wrong."""

from pathlib import Path

import pytest

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.streams.catalogue.file import parse_declarations, read_declarations
from ekko.streams.catalogue.plan import Declarations

FILE = """
[[regions]]
name = "east"

[[regions]]
name = "west"
bootstrap = "west-kafka:9092"

[[models]]
name = "ctr"
shards = 4

[[models.tables]]
name = "embedding"
dim = 16
fraction_bits = 20
initializer = "uniform"
scale = 0.01
seed = 7

[[models.tables]]
name = "bias"
dim = 1
"""


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(FILE)
    embedding = TableDeclaration("embedding", 16, 20, "uniform", 0.01, 7)
    assert read_declarations(path) == Declarations(
        (RegionDeclaration("east"), RegionDeclaration("west", "west-kafka:9092")),
        (ModelDeclaration("ctr", shards=4, tables=(embedding, TableDeclaration("bias", 1))),),
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("shards = 4", "shards = ", "line 11"),
        ("dim = 16", 'dim = "16"', r"models\[0\]\.tables\[0\]\.dim: .*given: '16'"),
        ("dim = 16", "dim = 0", r"models\[0\]\.tables\[0\]\.dim: "),
        ("dim = 1\n", "dims = 1\n", r"models\[0\]\.tables\[1\]\.dim: Field required.*dims: Extra inputs"),
        ('name = "east"', 'name = "East.1"', r"regions\[0\]\.name: "),
        ("shards = 4", "shards = 4000", r"models\[0\]\.shards: "),
        ("scale = 0.01", "scale = 1e9", "table embedding: scale"),
        ("scale = 0.01", "scale = nan", r"tables\[0\]\.scale: "),
        ('"uniform"', '"gaussian"', r"initializer: .*'zeros' or 'uniform'"),
        ("[[regions]]", "[[region]]", "region: Extra inputs"),
        ('name = "west"', 'name = "east"', "region east stands there twice"),
        ('name = "bias"', 'name = "embedding"', "two tables have the same name"),
        ("seed = 7", "seed = -1", r"tables\[0\]\.seed: "),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(old: str, new: str, told: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigurationError, match=told) as error:
        parse_declarations(FILE.replace(old, new), "models.toml")
    assert error.value.message.startswith("models.toml")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml cannot be read"):
        read_declarations(tmp_path / "nothing.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"image\.toml cannot be read"):
        read_declarations(tmp_path / "image.toml")
