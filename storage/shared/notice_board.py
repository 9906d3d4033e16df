"""What a store tells readers in other processes beside its rows: its version vector, and which states there are."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ekko.schemas.epochs import EpochRange
from ekko.storage.engine.memory import Array, Column
from ekko.storage.engine.patience import Patience

_VECTOR_BYTES = 1 << 20
_RANGES = 4096
_VERSION, _LENGTH, _RANGE_COUNT, _SERVING, _COMPLETE, _BOUND, _CLOSED = range(7)

BOARD_COLUMNS = (
    Column("board_header", "<i8", (7,)),
    Column("board_vector", "|u1", (_VECTOR_BYTES,)),
    Column("board_withdrawn", "<i8", (_RANGES, 2)),
)


class Notice(NamedTuple):
    """One consistent look at the board.

    Attributes:
        version: of the board; the same again means the same notice.
        vector: the encoded ReplicaState that the rows contain at least.
        serving: whether rows may be read at all. complete, bound: newest and oldest state that may be asked for.
        closed: the store has ended in good order.
    """

    version: int
    vector: bytes
    serving: bool
    complete: int
    bound: int
    withdrawn: tuple[EpochRange, ...]
    closed: bool


class NoticeBoard:
    """The board over its shared arrays: one writer, readers anywhere. Its version is odd while it is written."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._header = arrays["board_header"]
        self._vector = arrays["board_vector"]
        self._withdrawn = arrays["board_withdrawn"]

    def write(self, vector: bytes, *, serving: bool, complete: int) -> None:
        """Tell the version vector; a vector longer than the board's 1 MiB leaves readers with HTTP."""
        self._header[_VERSION] += 1
        fits = len(vector) <= _VECTOR_BYTES
        if fits:
            self._vector[: len(vector)] = np.frombuffer(vector, dtype=np.uint8)
        self._header[_LENGTH] = len(vector) if fits else 0
        self._header[_SERVING] = serving and fits
        self._header[_COMPLETE] = complete
        self._header[_VERSION] += 1

    def limit(self, bound: int, withdrawn: Sequence[EpochRange]) -> None:
        """Tell which states can be read no more; with over 4,096 ranges, none can in other processes."""
        self._header[_VERSION] += 1
        fits = len(withdrawn) <= _RANGES
        ranges = withdrawn if fits else [EpochRange(0, np.iinfo(np.int64).max)]
        self._withdrawn[: len(ranges)] = np.array(ranges, dtype=np.int64).reshape(-1, 2)
        self._header[_RANGE_COUNT] = len(ranges)
        self._header[_BOUND] = bound
        self._header[_VERSION] += 1

    def close(self) -> None:
        """Tell that the store has ended."""
        self._header[_CLOSED] = 1

    @property
    def closed(self) -> bool:
        """Whether the store has ended in good order."""
        return bool(self._header[_CLOSED])

    @property
    def version(self) -> int:
        """To be compared with a notice's: equal means that nothing has changed."""
        return int(self._header[_VERSION])

    def read(self) -> Notice:
        """A look at the board.

        Raises:
            NotReady: the store died while it wrote.
        """
        patience = Patience()
        while True:
            version = self.version  # alone and first: a copy's order is nobody's promise
            header = self._header.copy()
            vector = self._vector[: int(header[_LENGTH])].tobytes()
            ranges = self._withdrawn[: int(header[_RANGE_COUNT])].tolist()
            if not version & 1 and self.version == version:
                break
            patience.spend("the store's version vector")
        return Notice(
            version=version,
            vector=vector,
            serving=bool(header[_SERVING]),
            complete=int(header[_COMPLETE]),
            bound=int(header[_BOUND]),
            withdrawn=tuple(EpochRange(*states) for states in ranges),
            closed=bool(header[_CLOSED]),
        )
