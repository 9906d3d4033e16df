"""One key that everybody writes (CASES 3): no write of it is lost, and reads never fall back."""

from pathlib import Path

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from tests.storage.stores import keys_of, open_store, opened, uniform_deltas

RECORDS, DIM = 100_000, 4
MODEL = ModelDeclaration("ctr", 2, 1, (TableDeclaration("embedding", DIM),), incarnation=7)


def test_a_hundred_thousand_records_of_one_key(tmp_path: Path) -> None:
    """Every read, beside flushes and over epochs, sees all that was written; a store opened again has the whole sum."""
    key, one = keys_of(7), uniform_deltas(1, 1, DIM)
    store = open_store(tmp_path / "store", MODEL)
    flushes = 0
    for written in range(1, RECORDS + 1):
        epoch = written // 20_000
        store.apply("embedding", epoch, epoch, key, one)
        rows, found = store.lookup("embedding", key, None)
        assert found.all()
        assert (rows == written).all(), f"{rows.tolist()} after {written} records"
        if store.poll_flush() or written % 5_000 == 0:
            store.begin_flush(store.state)
            flushes += 1
    assert flushes >= RECORDS // 5_000
    store.flush(store.state)
    store.close()
    with opened(tmp_path / "store", MODEL) as again:
        assert again.lookup("embedding", key, None)[0].tolist() == [[RECORDS] * DIM]
        assert again.lookup("embedding", key, 1)[0].tolist() == [[19_999] * DIM], "what epoch 0 held"
