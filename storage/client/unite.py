"""One lookup out of the parts that several stores, or several requests, answered. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ekko.schemas.replicas import ReplicaState
from ekko.storage.serving.wire import Reply


class Part(NamedTuple):
    """Which of the keys asked for, by index, and their rows."""

    indices: npt.NDArray[np.intp] | slice
    reply: Reply


def unite(parts: Sequence[Part], count: int) -> Reply:
    """The rows of all parts, in the order of the keys (`count` of them)."""
    if len(parts) == 1:
        return parts[0].reply
    rows = np.empty((count, parts[0].reply.rows.shape[1]), dtype=np.int32)
    found = np.empty(count, dtype=np.bool_)
    for indices, reply in parts:
        rows[indices] = reply.rows
        found[indices] = reply.found
    return Reply(rows, found, tuple(state for part in parts for state in part.reply.states))


def unite_states(states: Sequence[ReplicaState]) -> ReplicaState:
    """What several answers contain at least: all their shards, only what every one of them knows of the rest.

    A shard that several answers tell of is told by the first: they come from one replica, or all own it.
    """
    first = states[0]
    shards = {shard: position for state in reversed(states) for shard, position in state.shards.items()}
    return replace(
        first,
        shards=dict(sorted(shards.items())),
        voids=tuple(void for void in first.voids if all(void in state.voids for state in states)),
        catalogue=min(state.catalogue for state in states),
        bound=max(state.bound for state in states),
    )
