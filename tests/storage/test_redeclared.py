"""A model that is deleted and declared anew under the same name: a client that lives on reads it as what it is now."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.storage.client import StoreClient
from ekko.storage.client.local_store import LocalStore
from tests.storage import replica_double
from tests.storage.replica_double import ReplicaDouble, serving
from tests.storage.stores import MODEL, keys_of, opened, uniform_deltas

ANEW = ModelDeclaration("ctr", 4, 1, (TableDeclaration("bias", 2, fraction_bits=10),), incarnation=50)


def test_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(ReplicaDouble()) as address, StoreClient("east", "ctr", stores=[address]) as client:
        assert client.lookup("bias", [1]).values.tolist() == [[2.0**-16]]
        monkeypatch.setattr(replica_double, "MODEL", ANEW)
        assert client.lookup("bias", [1]).values.tolist() == [[2.0**-10, 2 * 2.0**-10]]
        assert client.pull("bias", [1], generation=0).values.tolist() == [[2.0**-10, 2 * 2.0**-10]]
        with pytest.raises(ConfigurationError, match="no table 'embedding'"):
            client.lookup("embedding", [1])


def test_through_shared_memory(tmp_path: Path) -> None:
    anew = replace(MODEL, tables=(TableDeclaration("embedding", 2, fraction_bits=10),), incarnation=50)
    with StoreClient("east", "ctr", stores=[f"local://{tmp_path}"]) as client:
        for model, dim in ((MODEL, 64), (anew, 2)):
            with opened(tmp_path / f"{model.incarnation}", model) as store:
                store.apply("embedding", 0, 0, keys_of(1), uniform_deltas(1, 1 << 10, dim))
                store.publish(store.state, serving=True)
                value = 2.0 ** (10 - model.table("embedding").fraction_bits)
                np.testing.assert_array_equal(client.lookup("embedding", [1]).values, np.full((1, dim), value))
                with pytest.raises(ConfigurationError, match="declared anew"):
                    LocalStore(tmp_path, "ctr").lookup("embedding", keys_of(1), incarnation=8)
