"""The three formats: what is written is read back, in chunks, and files that hold no table are refused by name."""

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ekko.ops.exchange import parquet
from ekko.ops.exchange.files import open_table, write_table
from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import Distinct, Names, Origin, TableFile, chunk_rows
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput, ConfigurationError, EkkoError
from ekko.schemas.hashing import checksum

TABLE = TableDeclaration("embedding", 64, initializer="uniform", scale=0.01, seed=7)
COUNT = 3 * chunk_rows(64) + 5
FORMATS = pytest.mark.parametrize("ending", ["npz", "safetensors", "parquet"])


def rows(dtype: type = np.int32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    keys = rng.permutation(np.concatenate([np.arange(COUNT - 1, dtype=np.uint64), [np.uint64(2**64 - 1)]]))
    values = rng.integers(-(2**31), 2**31, (COUNT, 64))
    return keys, values.astype(dtype)


def read(file: TableFile) -> tuple[np.ndarray, np.ndarray]:
    chunks = list(file.chunks())
    assert [len(chunk.keys) for chunk in chunks] == [chunk_rows(file.dim)] * (len(chunks) - 1) + [len(chunks[-1].keys)]
    return np.concatenate([chunk.keys for chunk in chunks]), np.concatenate([chunk.values for chunk in chunks])


def export(path: Path, keys: np.ndarray, values: np.ndarray, *, exact: bool) -> Origin:
    origin = Origin("ctr", TABLE, 7, len(keys), checksum("embedding", keys, values.astype(np.int32)))
    with Spool(path.parent, 64, exact=exact) as spool:
        for start in range(0, len(keys), 1000):
            spool.add(keys[start : start + 1000], values[start : start + 1000])
        write_table(path, spool, origin)
    return origin


@FORMATS
def test_an_export_is_read_back_to_the_bit(tmp_path: Path, ending: str) -> None:
    keys, values = rows()
    path = tmp_path / f"embedding.{ending}"
    origin = export(path, keys, values, exact=True)
    file = open_table(path, Names())
    assert (file.rows, file.dim, file.origin) == (COUNT, 64, origin)
    for _ in range(2):
        read_keys, read_values = read(file)
        assert read_values.dtype == np.int32
        assert np.array_equal(read_keys, keys)
        assert np.array_equal(read_values, values)
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing else is left behind"


@FORMATS
def test_an_export_of_floats_is_a_file_as_anybody_writes_it(tmp_path: Path, ending: str) -> None:
    keys, values = rows(np.float32)
    path = tmp_path / f"embedding.{ending}"
    export(path, keys, values, exact=False)
    file = open_table(path, Names())
    assert file.origin is None
    assert np.array_equal(read(file)[1], values)


def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes(tmp_path: Path) -> None:
    keys, values = rows()
    export(tmp_path / "ours.npz", keys, values, exact=True)
    with np.load(tmp_path / "ours.npz") as arrays:
        assert np.array_equal(arrays["keys"], keys)
        assert np.array_equal(arrays["rows"], values)
    for number, save in enumerate((np.savez, np.savez_compressed)):
        save(tmp_path / f"{number}.npz", weight=values.astype(np.float64))
        read_keys, read_values = read(open_table(tmp_path / f"{number}.npz", Names(values="weight")))
        assert np.array_equal(read_keys, np.arange(COUNT)), "rows without keys are numbered"
        assert np.array_equal(read_values, values.astype(np.float64))


def test_pyarrow_reads_what_we_write_and_we_read_lists_of_others(tmp_path: Path) -> None:
    keys, values = rows()
    export(tmp_path / "ours.parquet", keys, values, exact=True)
    table = pq.read_table(tmp_path / "ours.parquet")
    assert table.column("keys").to_numpy().tolist() == keys.tolist()
    table = pa.table({"id": pa.array([3, 1], pa.int64()), "vector": pa.array([[0.5, 1.0], [2.0, 3.0]])})
    pq.write_table(table, tmp_path / "others.parquet")
    read_keys, read_values = read(open_table(tmp_path / "others.parquet", Names("id", "vector")))
    assert read_keys.tolist() == [3, 1]
    assert read_values.tolist() == [[0.5, 1.0], [2.0, 3.0]]


def test_bfloat16_of_safetensors_is_read(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    header = {"emb.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + halves)
    assert np.array_equal(read(open_table(tmp_path / "m.safetensors", Names(values="emb.weight")))[1], values)


@FORMATS
def test_files_that_hold_no_table_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    with pytest.raises(BadInput, match=rf"bad\.{ending} cannot be read: .*No such file"):
        open_table(path, Names())
    for content in (b"", b"\x08", b"not at all" * 20, struct.pack("<Q", 2) + b"[]"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=rf"bad\.{ending}"):
            open_table(path, Names())
    keys, values = rows(np.float32)
    export(path, keys, values, exact=False)
    with pytest.raises(BadInput, match=r"no (array|column) 'weight'") as refused:
        open_table(path, Names(values="weight"))
    assert "values" in refused.value.hint


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    keys, values = rows(np.float32)
    export(tmp_path / "t.safetensors", keys, values, exact=False)
    data = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "t.safetensors").write_bytes(data[:-1])
    with pytest.raises(BadInput, match="cut short"):
        read(open_table(tmp_path / "t.safetensors", Names()))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"values": np.zeros((2, 3), np.int32)}, "not floating point"),
        ({"values": np.zeros(6)}, "not floating point"),
        ({"values": np.zeros((2, 3)), "keys": np.arange(3)}, "keys are of shape"),
        ({"values": np.zeros((2, 3)), "keys": np.array([1.0, 2.0])}, "not whole numbers"),
        ({"values": np.zeros((2, 3)), "keys": np.array([1, -2])}, "key -2 is negative"),
        ({"values": np.zeros((2, 3), order="F")}, "column order"),
        ({"values": np.array([[None]])}, "Python objects"),
    ],
)
def test_arrays_that_are_none_of_a_table_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "t.npz", allow_pickle=True, **arrays)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=message):
        read(open_table(tmp_path / "t.npz", Names()))


def test_a_key_twice_is_refused() -> None:
    distinct = Distinct(Path("t.npz"))
    distinct.add(np.array([1, 2], np.uint64))
    distinct.check()
    distinct.add(np.array([3, 2], np.uint64))
    with pytest.raises(BadInput, match=r"1 rows have a key that is there already \(the smallest: 2\)"):
        distinct.check()


def test_other_endings_and_a_missing_extra_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="what format") as unknown:
        open_table(tmp_path / "model.pt", Names())
    assert ".npz, .safetensors, .parquet" in unknown.value.hint
    monkeypatch.setattr(parquet, "pa", None)
    with pytest.raises(ConfigurationError, match="pyarrow, which is not installed") as missing:
        open_table(tmp_path / "t.parquet", Names())
    assert "ekko-kafka[exchange]" in missing.value.hint
    assert issubclass(BadInput, EkkoError)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [2, "16"], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [2, -16], "data_offsets": [0, 128]},
        {"dtype": "F32", "shape": [2, 16], "data_offsets": [-8, 128]},
        {"dtype": "F32", "shape": [2, 16], "data_offsets": []},
        {"dtype": "F32", "shape": [2, 16]},
        [2, 16],
    ],
)
def test_a_safetensors_header_that_describes_no_tensor_is_refused(tmp_path: Path, tensor: object) -> None:
    path, header = tmp_path / "embedding.safetensors", json.dumps({"values": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(128))
    with pytest.raises(BadInput, match="is no safetensors file"):
        open_table(path, Names())
