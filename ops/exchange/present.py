"""The rows that are there before an import takes their place."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import NotReady, StateUnavailable
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.client import StoreClient

_POLL_S = 0.2
_LOOKUP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Replace:
    """Where the present rows are read, so that those of a file take their place.

    Attributes:
        wait_s: how long to wait for a model state that holds all that was published before.
    """

    region: str
    stores: Sequence[str]
    wait_s: float


class PresentRows:
    """Rows of a table as of a model state after everything that was published when `barrier` was the last one.

    That state is not the next: the next barrier may be committed and not yet be readable.
    """

    def __init__(self, replace: Replace, model: str, table: str, barrier: Barrier) -> None:
        self._client = StoreClient(replace.region, model, stores=replace.stores, timeout_s=_LOOKUP_TIMEOUT_S)
        self._table, self._state = table, barrier.epoch + 2
        self._wait_s = replace.wait_s
        self._deadline = time.monotonic() + replace.wait_s

    def rows(self, keys: UInt64s) -> Int32s:
        """Rows of `keys` as stored, int32[N, dim], zeros where absent.

        Raises:
            StateUnavailable, NotReady: the state was not complete in time, or cannot be told any more.
        """
        while True:
            try:
                return self._client.stored(self._table, keys, as_of=self._state).rows
            except (StateUnavailable, NotReady) as error:
                if time.monotonic() > self._deadline:
                    raise type(error)(
                        f"the stores cannot tell model state {self._state}, after {self._wait_s:g} s: {error.message}",
                        hint="look at `ekko states` and `ekko status`, then run the import again, with a longer --wait",
                    ) from error
            time.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
