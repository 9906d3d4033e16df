"""The law of expiry, by the raw source log: an expired row is what came after it, and nothing had come for long."""

from typing import TYPE_CHECKING

import numpy as np

from ekko.schemas.blocks import Purpose
from tests.simulation.truth import Accepted, Truth

if TYPE_CHECKING:
    from ekko.schemas.quantize import Int32s


def check_expired(truth: Truth) -> None:
    """For every row that has expired, and whose expiry is not void: what belongs to epochs before it is gone, exactly.

    Whatever was retracted, rolled back or reinstated since.
    """
    counted = [entry for entry in truth.accepted if not truth.is_void(entry.effective)]
    for table, keys in truth.keys.items():
        dim = truth.model.table(table).dim
        mine = [entry for entry in counted if entry.block.table == table]
        since = np.zeros(len(keys), np.int64)  # the state as of which a key has expired last
        for entry in mine:
            if _is_expiry(entry) and entry.block.purpose is not Purpose.RETRACT:
                places = np.searchsorted(keys, entry.block.keys)
                since[places] = np.maximum(since[places], _state(entry))
        left = np.zeros((len(keys), dim), np.int32)
        for entry in mine:
            places = np.searchsorted(keys, entry.block.keys)
            before = np.full(len(places), True) if _is_expiry(entry) else entry.effective < since[places]
            left[places[before]] += entry.block.deltas[before]
        wrong = np.flatnonzero(left.any(axis=1))
        assert not len(wrong), (
            f"table {table}: {len(wrong)} rows did not expire exactly; the first: of key {keys[wrong[0]]}, expired as "
            f"of state {since[wrong[0]]}, {left[wrong[0]].tolist()} is left"
        )


def check_only_idle_rows_expire(truth: Truth) -> None:
    """Nothing had arrived between the epoch that an expiry names and the state as of which it was read.

    Or all of it came to nothing: where a delta is taken back while it waits to be sent, in its epoch or one between
    which and its own only withdrawn states stand, no store ever hears of it.
    """
    for expiry in truth.accepted:
        if expiry.block.purpose is not Purpose.EXPIRE:
            continue
        idle_since, state = _epochs(expiry)
        keys, expired = truth.keys[expiry.block.table], expiry.block.keys
        came: dict[tuple[int, int], Int32s] = {}
        for entry in truth.accepted:
            near = entry.block.table == expiry.block.table and idle_since <= entry.arrival < state
            if near and not truth.is_void(entry.effective):
                group = truth.label(entry.arrival), truth.label(entry.effective)
                rows = came.setdefault(group, np.zeros((len(keys), entry.block.deltas.shape[1]), np.int32))
                rows[np.searchsorted(keys, entry.block.keys)] += entry.block.deltas
        for (arrival, _), rows in came.items():
            both = expired[rows[np.searchsorted(keys, expired)].any(axis=1)]
            assert not len(both), f"{expiry.block.trainer}: keys {both.tolist()} had a delta in {arrival} or later"


def _is_expiry(entry: Accepted) -> bool:
    return entry.block.trainer.startswith("expire/")


def _epochs(entry: Accepted) -> tuple[int, int]:
    idle_since, state = entry.block.trainer.rsplit("/", 1)[1].split("-")
    return int(idle_since), int(state)


def _state(entry: Accepted) -> int:
    return _epochs(entry)[1]
