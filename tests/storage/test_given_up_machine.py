"""The machine of `test_store_machine` with flushes that are given up at any point of their copying, undo or not."""

from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StoreUnwritable
from ekko.storage.disk.durable import Batch
from tests.storage.test_store_machine import QUICK, RocksMachine, StoreMachine


class GivenUpMachine(StoreMachine):
    """A flush that was given up has never been, whatever happened while it was copied and whatever happens then."""

    @rule(steps=st.integers(0, 8))
    def give_up(self, steps: int) -> None:
        """As an undo does, but of the flush under way or one that has just begun, whatever has changed since."""
        if self.flushing is None:
            self.begin_flush(steps)
        given_up, flushed = self.copying, self.store.flushed
        assert self.store._flusher.give_up() == given_up
        assert not given_up or self.store.flushed is flushed
        self.notice(given_up=given_up)

    @precondition(lambda self: not self.unlearnt)
    @rule(steps=st.integers(0, 8), data=st.data())
    def flush_in_vain(self, steps: int, data: st.DataObject) -> None:
        """What is being copied gets newer entries, is united with them, and is not flushed after all."""
        self.begin_flush(steps)
        self.train(2, data)
        self.withdraw_states(EpochRange(self.epoch - 2, self.epoch - data.draw(st.integers(1, 2))))
        self.give_up(0)

    @rule(steps=st.integers(0, 8))
    def fail(self, steps: int) -> None:
        """The disk refuses the commit: for what was copied it is the same."""
        if self.flushing is None:
            self.begin_flush(steps)
        if not self.copying:
            return
        keeper = self.store._durable

        def refuse(_: Batch) -> None:
            keeper.discard()
            raise StoreUnwritable("the disk is full")

        with mock.patch.object(keeper, "commit", refuse), pytest.raises(StoreUnwritable):
            self.finish_flush()
        self.notice(given_up=True)


class RocksGivenUpMachine(GivenUpMachine, RocksMachine):
    """The same on RocksDB."""


GivenUpMachine.TestCase.settings = QUICK
RocksGivenUpMachine.TestCase.settings = settings(QUICK, max_examples=8)
TestGivenUp = GivenUpMachine.TestCase
TestRocksGivenUp = RocksGivenUpMachine.TestCase
TestGivenUp.pytestmark = TestRocksGivenUp.pytestmark = pytest.mark.timeout(600)  # some seconds on a machine at rest
