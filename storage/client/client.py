"""Reading parameters: `StoreClient` asks the region's stores over HTTP, and needs neither Kafka nor RocksDB."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import BadInput, ConfigurationError, ConnectionFailed, NotOwned, NotReady, StateUnavailable
from ekko.schemas.hashing import UInt64s
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import to_float
from ekko.schemas.replicas import ReplicaState
from ekko.storage.client.directory import COOL_OFF_S
from ekko.storage.client.local_store import LocalStore
from ekko.storage.client.replicas import Replicas
from ekko.storage.client.unite import Part, unite, unite_states
from ekko.storage.serving import wire
from ekko.storage.serving.served import MAX_LOOKUP_KEYS, Checksum, UpdateLatency

_LOCAL = "local://"
_UNDOING_S = 0.02
"""Between two looks for a replica that has undone enough; most undo in well under a second."""
_ASK_OTHERS = (ConfigurationError, ConnectionFailed, NotOwned, NotReady, StateUnavailable)
"""What a store on this machine may answer where others may know better."""


class Rows:
    """Parameter values of a lookup; `np.asarray(rows)` is `values`.

    Attributes:
        values: float32[N, dim], initialiser included.
        found: bool[N], False where no delta has arrived and the value is the initialiser's.
    """

    def __init__(
        self, values: npt.NDArray[np.float32], found: npt.NDArray[np.bool_], states: tuple[bytes, ...]
    ) -> None:
        self.values = values
        self.found = found
        self._states = states

    @cached_property
    def state(self) -> ReplicaState:
        """The version vector that the rows contain at least (decoded when it is asked for: most readers never do)."""
        codec = Codec()
        return unite_states([wire.read_state(state, codec) for state in self._states])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The values, for numpy."""
        return np.array(self.values, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.values)


class StoreClient:
    """Reads one model's parameters from the stores of one region; may be shared by threads.

    Args:
        region: where the stores are; it names the source of what is reported.
        stores: host:port of one or more stores, nearest first; more are learnt from the region's members. One may be
            `local://FOLDER`, the --data folder of a store on this machine: it is read through shared memory, and the
            others when it cannot answer. It takes no reports: give a host:port beside it for those.
        timeout_s: for a whole call, failover included.

    Example:
        >>> client = StoreClient("east", "ctr", stores=["127.0.0.1:7070"])
        >>> vectors = np.asarray(client.lookup("embedding", [1, 2, 3]))
    """

    def __init__(self, region: str, model: str, *, stores: Sequence[str], timeout_s: float = 1.0) -> None:
        if isinstance(stores, str) or not stores:
            raise ConfigurationError("no stores are given", hint='pass stores=["host:port", ...]')
        self.region = region
        self.model = model
        self._timeout_s = timeout_s
        remote = [store for store in stores if not store.startswith(_LOCAL)]
        folders = [Path(store.removeprefix(_LOCAL)) for store in stores if store.startswith(_LOCAL)]
        self._replicas = Replicas(model, remote)
        self._local = LocalStore(folders[0], model) if folders else None
        self._local_again_s = 0.0
        self._only_local = not remote
        self._declaration: ModelDeclaration | None = None

    def lookup(self, table: str, keys: npt.ArrayLike, *, as_of: int | None = None) -> Rows:
        """Values of `keys` (N whole numbers, 0 to 2**64 - 1), now or as of the start of model state `as_of`.

        Raises:
            ConfigurationError: no such model or table.
            BadInput: `keys` are not whole numbers in one dimension.
            StateUnavailable: no replica can tell `as_of`.
            ConnectionFailed, NotReady: no store answered within the time-out.
        """
        wanted = as_keys(keys)
        return _rows(wanted, *self._read(table, lambda model: self._stored(model, table, wanted, as_of)))

    def pull(self, table: str, keys: npt.ArrayLike, *, generation: int, timeout_s: float = 10.0) -> Rows:
        """Values of `keys` to learn from: live ones, of replicas that have undone `generation` rollbacks.

        A trainer calls it when it starts and from its `on_rollback`, with the generation that this is told. The rows
        are live even where readers are given a pinned state's.

        Args:
            timeout_s: how long to wait for replicas that undo.

        Raises:
            NotReady: no replica has undone so many in time. Others as `lookup`.
        """
        wanted = as_keys(keys)
        query = f"&generation={generation}"
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return _rows(wanted, *self._read(table, lambda model: self._remote(model, table, query, wanted)))
            except NotReady:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_UNDOING_S)

    def stored(self, table: str, keys: UInt64s, *, as_of: int | None = None) -> wire.Reply:
        """Rows of `keys` (uint64[N]) as they are stored, int32 and without the initialiser; otherwise as `lookup`."""
        return self._read(table, lambda model: self._stored(model, table, keys, as_of))[1]

    def _read(self, table: str, read: Callable[[ModelDeclaration], wire.Reply]) -> tuple[TableDeclaration, wire.Reply]:
        """The table and what `read` answers; once more if the model was deleted and declared anew in the meantime."""
        model, declared = self._table(table)
        try:
            return declared, read(model)
        except ConfigurationError:
            known = self.declaration()
            if known.incarnation == model.incarnation:
                raise
        return known.table(table), read(known)

    def _stored(self, model: ModelDeclaration, table: str, keys: UInt64s, as_of: int | None) -> wire.Reply:
        query = "" if as_of is None else f"&as_of={as_of}"
        return self._local_reply(model, table, keys, as_of) or self._remote(model, table, query, keys)

    def _local_reply(self, model: ModelDeclaration, table: str, keys: UInt64s, as_of: int | None) -> wire.Reply | None:
        if self._local is None or (time.monotonic() < self._local_again_s and not self._only_local):
            return None
        try:
            return self._local.lookup(table, keys, as_of, incarnation=model.incarnation)
        except _ASK_OTHERS as error:
            if self._only_local:
                raise
            if not isinstance(error, NotOwned | StateUnavailable):  # looking for it anew takes longer than others take
                self._local_again_s = time.monotonic() + COOL_OFF_S
            return None

    def _remote(self, model: ModelDeclaration, table: str, query: str, keys: UInt64s) -> wire.Reply:
        path = f"/v1/models/{self.model}/tables/{table}/lookup?incarnation={model.incarnation}{query}"
        deadline = time.monotonic() + self._timeout_s
        pieces = [slice(start, start + MAX_LOOKUP_KEYS) for start in range(0, max(1, len(keys)), MAX_LOOKUP_KEYS)]
        parts = [Part(piece, self._lookup_piece(model, path, keys[piece], deadline)) for piece in pieces]
        return unite(parts, len(keys))

    def _lookup_piece(self, model: ModelDeclaration, path: str, keys: UInt64s, deadline: float) -> wire.Reply:
        def ask(address: str, some: UInt64s, timeout_s: float) -> wire.Reply:
            body = self._replicas.request(address, "POST", path, wire.encode_keys(some), timeout_s)
            return wire.decode_lookup(body)

        answers = self._replicas.gather(keys, model.shards, ask, deadline)
        return unite([Part(*answer) for answer in answers], len(keys))

    def checksum(self, table: str, *, as_of: int | None = None, timeout_s: float = 30.0) -> Checksum:
        """Checksum of a table at the first store that answers, with the exact version vector it belongs to."""
        query = f"table={table}" + ("" if as_of is None else f"&as_of={as_of}")
        return wire.CHECKSUM_JSON.validate_json(self._ask("GET", f"/checksum?{query}", timeout_s=timeout_s))

    def latency(self) -> UpdateLatency:
        """Update latencies measured by the first store that answers."""
        return wire.LATENCY_JSON.validate_json(self._ask("GET", "/latency"))

    def declaration(self) -> ModelDeclaration:
        """The model's declaration as the stores know it now."""
        if self._local is not None and self._only_local:
            self._declaration = self._local.model
        else:
            self._declaration = wire.MODEL_JSON.validate_json(self._ask("GET", ""))
        return self._declaration

    def state(self) -> ReplicaState:
        """The version vector of the stores that a lookup would ask now."""
        tables = (self._declaration or self.declaration()).tables
        if not tables:
            raise ConfigurationError(f"model {self.model} has no tables", hint="declare one with `ekko model apply`")
        return self.lookup(tables[0].name, np.empty(0, np.uint64)).state

    def report(
        self, metric: str, value: float, count: int = 1, cohort: str = "live", *, event_us: int | None = None
    ) -> None:
        """Report a measurement: `value` is the sum over `count` observations (requests, log_loss, auc ...).

        `event_us` is when they happened, microseconds since 1970; None for now.
        """
        self._ask("POST", "/signals", wire.encode_signal(metric, value, count, cohort, event_us))

    def close(self) -> None:
        """Close all connections."""
        self._replicas.close()
        if self._local is not None:
            self._local.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _table(self, name: str) -> tuple[ModelDeclaration, TableDeclaration]:
        """The table; the stores are asked again if it is new to this client."""
        known = self._declaration
        if known is None or all(table.name != name for table in known.tables):
            known = self.declaration()
        return known, known.table(name)

    def _ask(self, method: str, path: str, body: bytes = b"", timeout_s: float | None = None) -> bytes:
        limit = self._timeout_s if timeout_s is None else timeout_s
        return self._replicas.ask(method, f"/v1/models/{self.model}{path}", body, limit)


def _rows(wanted: UInt64s, declared: TableDeclaration, reply: wire.Reply) -> Rows:
    # Wrap-around addition, as everywhere: the initialiser is the row's first delta.
    rows = reply.rows if declared.initializer == "zeros" else reply.rows + initial_rows(declared, wanted)
    return Rows(to_float(rows, declared.fraction_bits), reply.found, reply.states)


def as_keys(keys: npt.ArrayLike) -> UInt64s:
    """Keys as uint64[N]; raises BadInput for what would silently become other keys."""
    array = np.asarray(keys)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.uint64)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise BadInput(
            f"keys of shape {array.shape} and type {array.dtype} are no list of whole numbers",
            hint="pass a one-dimensional array of integers",
        )
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise BadInput(f"key {int(array.min())} is negative", hint="keys are 0 to 2**64 - 1")
    return array.astype(np.uint64, copy=False)
