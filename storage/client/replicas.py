"""Asking a region's replicas: picks a store, goes on to another one when it fails, follows the region's members."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ekko.schemas.errors import ConnectionFailed, EkkoError, NotOwned, NotReady, QueueFull, StateUnavailable
from ekko.schemas.hashing import UInt64s
from ekko.storage.client.connections import Connections
from ekko.storage.client.directory import Directory, Indices
from ekko.storage.serving import wire

_Answer = TypeVar("_Answer")

_ELSEWHERE = (ConnectionFailed, NotReady, NotOwned, StateUnavailable, QueueFull)
"""What another replica may answer better."""

_REFRESH_S = 5.0
"""How often the members of the region are asked for; after a failure they are asked for at once."""

_REFRESH_TIMEOUT_S = 0.25
"""At most, and never more than half of what is left to the caller."""

_TRIES = 2
"""A kept-alive connection may turn out closed, so every store gets a second chance within the time-out."""


class Replicas:
    """The stores of one model in one region; may be shared by threads."""

    def __init__(self, model: str, stores: Sequence[str]) -> None:
        self._directory = Directory(model, stores)
        self._connections = Connections()
        self._refresh_at = 0.0

    def request(self, address: str, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        """One request to one store; see `Connections.request`."""
        return self._connections.request(address, method, path, body, timeout_s)

    def ask(self, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
        """The answer of the first store that gives one; raises what the last one said, or ConnectionFailed."""
        deadline = time.monotonic() + timeout_s
        tried: Counter[str] = Counter()
        self._refresh_if_due(deadline)
        while True:
            address = self._directory.best(frozenset(), tried, time.monotonic())
            try:
                return self.request(address, method, path, body, self._share(tried, deadline))
            except _ELSEWHERE as error:
                self._note(address, error, tried, deadline)

    def gather(
        self, keys: UInt64s, shards: int, ask: Callable[[str, UInt64s, float], _Answer], deadline: float
    ) -> list[tuple[Indices | slice, _Answer]]:
        """Answers about all of `keys`, from as many stores as it takes, each with the indices of its keys.

        Args:
            keys: uint64[N].
            shards: the model's.
            ask: (address, keys, time-out in seconds) -> answer.
            deadline: on the monotonic clock.

        Raises:
            EkkoError: what the last store said when no other could answer either.
        """
        tried: Counter[str] = Counter()
        self._refresh_if_due(deadline)
        plan = self._first_plan(keys, shards, deadline)
        answers: list[tuple[Indices | slice, _Answer]] = []
        while plan:
            failed: list[Indices] = []
            for address, indices in plan:
                try:
                    answers.append((indices, ask(address, keys[indices], self._share(tried, deadline))))
                except _ELSEWHERE as error:
                    failed.append(np.arange(len(keys))[indices])
                    self._note(address, error, tried, deadline)
            waiting = np.concatenate(failed) if failed else None
            plan = [] if waiting is None else self._plan_again(keys, waiting, shards, tried)
        return answers

    def _first_plan(self, keys: UInt64s, shards: int, deadline: float) -> list[tuple[str, Indices | slice]]:
        """A shard that nobody is known to hold may have got a holder since the members were last asked for."""
        try:
            return self._directory.plan(keys, shards, {}, time.monotonic())
        except NotReady:
            self._refresh(deadline)
            return self._directory.plan(keys, shards, {}, time.monotonic())

    def _plan_again(
        self, keys: UInt64s, waiting: Indices, shards: int, tried: Counter[str]
    ) -> list[tuple[str, Indices | slice]]:
        plan = self._directory.plan(keys[waiting], shards, tried, time.monotonic())
        return [(address, waiting[indices]) for address, indices in plan]

    def _note(self, address: str, error: EkkoError, tried: Counter[str], deadline: float) -> None:
        """Remember a failure; raises it when it was the last chance."""
        tried[address] += 1
        if isinstance(error, ConnectionFailed | NotReady):
            self._directory.failed(address, time.monotonic())
        if time.monotonic() >= deadline or tried.total() >= _TRIES * len(self._directory):
            raise error
        self._refresh(deadline)

    def _share(self, tried: Counter[str], deadline: float) -> float:
        """This attempt's part of the time left: a store that hangs must leave time for those not tried yet."""
        untried = max(1, len(self._directory) - len(tried))
        return max(0.01, (deadline - time.monotonic()) / untried)

    def _refresh_if_due(self, deadline: float) -> None:
        if time.monotonic() >= self._refresh_at:
            self._refresh(deadline)

    def _refresh(self, deadline: float) -> None:
        """Learn the region's members from a store that works; keeps what is known when none answers."""
        now_s = time.monotonic()
        self._refresh_at = now_s + _REFRESH_S
        address = self._directory.best(frozenset(), {}, now_s)
        timeout_s = min(_REFRESH_TIMEOUT_S, (deadline - now_s) / 2)
        try:
            body = self.request(address, "GET", "/v1/members", b"", timeout_s)
            self._directory.learn(wire.MEMBERS_JSON.validate_json(body))
        except (EkkoError, ValueError):
            self._directory.failed(address, now_s)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()
