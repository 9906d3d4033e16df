"""Bugs planted where a flush is given up: what proves it must catch each of them."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest

from ekko.schemas.errors import StoreCorrupt
from ekko.storage.disk import flush
from ekko.storage.disk.flush import Flusher
from ekko.storage.engine.applying import ApplyingTable
from ekko.storage.engine.capture import _COPIED, TableCapture
from tests.simulation.durable import MemoryDurable
from tests.storage.test_given_up import CHANGES, give_up_wherever

instead = partial(mock.patch.object, autospec=True)


def ending(mistake: Callable[[TableCapture], None], *, after: bool) -> Any:
    """A capture that is given up ends with a mistake."""
    original = TableCapture.end

    def end(self: TableCapture, *, durable: bool) -> None:
        if not durable and not after:
            mistake(self)
        original(self, durable=durable)
        if not durable and after:
            mistake(self)

    return instead(TableCapture, "end", side_effect=end)


def marks_are_not_given_back() -> Any:
    """What was copied counts as durable."""

    def clear(capture: TableCapture) -> None:
        for flags in (capture._arena.dirty, capture._pool.dirty):
            flags[flags == _COPIED] = 0

    return ending(clear, after=False)


def marks_stay_where_they_were() -> Any:
    """Not what became of the values is marked, but the entries that had them when the capture began."""

    def move(capture: TableCapture) -> None:
        pool, entries = capture._pool, capture._entries
        pool.dirty[pool.dirty == _COPIED] = 0
        pool.dirty[entries[pool.slots.take(entries) != 0]] = 1

    return ending(move, after=False)


def what_is_free_is_marked() -> Any:
    """An entry that was freed in between is to be written all the same."""

    def mark(capture: TableCapture) -> None:
        capture._pool.dirty[capture._entries] = 1

    return ending(mark, after=True)


def tallies_count_twice() -> Any:
    """Entries that were copied are taken for new ones, though the tallies have them already."""

    def forget(capture: TableCapture) -> None:
        capture._pool.hashes[capture._entries] = 0

    return ending(forget, after=True)


def memory_is_not_given_back() -> Any:
    """The next batch is allocated behind the one that never came."""
    original = Flusher.give_up

    def give_up(self: Flusher) -> bool:
        with instead(MemoryDurable, "discard"):
            return original(self)

    return instead(Flusher, "give_up", side_effect=give_up)


def memory_is_taken_from_a_commit() -> Any:
    """Whatever the flush has come to, its memory serves the next one."""
    original = Flusher.give_up

    def give_up(self: Flusher) -> bool:
        self._durable.discard()
        return original(self)

    return instead(Flusher, "give_up", side_effect=give_up)


def a_commit_is_given_up() -> Any:
    """A flush that is copied, and only waits to be committed, is forgotten too."""
    original = Flusher.give_up

    def give_up(self: Flusher) -> bool:
        copied = self.busy and not self._copying
        if copied:
            self._end(durable=False)
            self._durable.discard()
        return original(self) or copied

    return instead(Flusher, "give_up", side_effect=give_up)


def it_counts_as_durable() -> Any:
    """A store tells a state that it never wrote."""
    original = Flusher._end

    def end(self: Flusher, *, durable: bool) -> None:
        assert self._capture is not None
        self.flushed = self._capture.state
        original(self, durable=durable)

    return instead(Flusher, "_end", side_effect=end)


def it_goes_on_listening() -> Any:
    """Nobody tells the tables that their capture is no more."""
    return instead(ApplyingTable, "release_capture")


MUTATIONS = (
    marks_are_not_given_back,
    marks_stay_where_they_were,
    what_is_free_is_marked,
    tallies_count_twice,
    memory_is_not_given_back,
    memory_is_taken_from_a_commit,
    a_commit_is_given_up,
    it_counts_as_durable,
    it_goes_on_listening,
)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_caught(monkeypatch: pytest.MonkeyPatch, mutation: Callable[[], Any]) -> None:
    monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 1)
    with mutation(), pytest.raises((AssertionError, StoreCorrupt)):
        give_up_wherever(CHANGES)
