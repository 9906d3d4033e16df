"""Expiry on the twin, alone and among retractions, rollbacks and reinstatements, judged by the raw source log."""

import numpy as np
import pytest

from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import EpochRange, ModelState
from ekko.schemas.errors import ConfigurationError, Fenced, RolledBack
from ekko.streams.manager.barriers import beginning, rolling_back, withdrawing
from ekko.streams.memory.faults import Faults
from ekko.streams.operations.expiry import ExpiryName, RowsExpiry, expiry_name, oldest_target, state_of_age
from ekko.streams.operations.operation import Outcome
from ekko.streams.operations.rows_writer import Target
from tests.simulation.checks.expired import check_expired, check_only_idle_rows_expire
from tests.simulation.truth import Truth
from tests.streams.operations.world import MODEL, DiesAt, Killed, World, same

A, B = MODEL.tables


def check(world: World) -> None:
    truth = Truth(world.broker, "ctr")
    check_expired(truth)
    check_only_idle_rows_expire(truth)


def aged(seed: int = 1) -> World:
    """Two epochs with deltas of many keys, then some in which few are touched; the first three states are given up."""
    world = World(seed)
    for _ in range(2):
        world.publish(6)
        world.barrier()
    world.barrier(withdrawing(range(3)))
    world.publish(1)
    world.barrier()
    return world


def test_expired_rows_are_gone_and_the_others_stay() -> None:
    world = aged()
    before = world.rows()
    idle = world.idle(A, 3)
    assert world.expire(A, 3) == np.count_nonzero(before["a"][idle].any(axis=1)) > 0
    after = world.rows()
    assert not after["a"][idle].any()
    assert np.array_equal(after["a"][~idle], before["a"][~idle])
    assert np.array_equal(after["b"], before["b"])
    check(world)
    assert world.expire(A, 3) == 0, "again: nothing is left to expire"


def test_nothing_expires_that_came_since_the_oldest_state_a_rollback_may_name() -> None:
    world = aged()
    world.barrier()
    world.expire(A, 100)
    names = {
        expiry_name(entry.block.trainer)
        for entry in Truth(world.broker, "ctr").accepted
        if entry.block.purpose is Purpose.EXPIRE
    }
    assert {name.idle_since for name in names if name} == {3}
    check(world)


def test_a_retraction_after_an_expiry_leaves_the_expired_row_absent_and_earlier_states_exact() -> None:
    world = aged()
    expected = {state: world.rows(without="bad", epochs=EpochRange(0, 1), before=state) for state in range(4, 6)}
    world.expire(A, 3)
    gone = world.rows()
    world.run(world.retraction(EpochRange(0, 1)))
    idle = world.idle(A, 10**6) & ~gone["a"].any(axis=1)
    assert not world.rows()["a"][idle].any(), "minus x alone would have left something here"
    assert all(same(world.rows(before=state), rows) for state, rows in expected.items())
    check(world)
    assert world.run(world.retraction(EpochRange(0, 1))) == Outcome(0, 0)


def test_rolling_an_expiry_back_brings_the_rows_back_also_after_a_retraction() -> None:
    world = aged()
    state = world.tenure.barrier.epoch
    expected = world.rows(without="bad", epochs=EpochRange(0, 1))
    world.expire(A, 3)
    world.run(world.retraction(EpochRange(0, 1)))
    world.barrier(rolling_back(state))
    assert same(world.rows(), expected)
    world.run(world.reinstatement(EpochRange(state, world.tenure.barrier.epoch - 1)))
    check(world)
    assert not same(world.rows(), expected)


def test_what_was_retracted_between_rollback_and_reinstatement_does_not_expire_again() -> None:
    world = aged()
    state = world.tenure.barrier.epoch
    world.expire(A, 3)
    world.barrier(rolling_back(state))
    void = EpochRange(state, world.tenure.barrier.epoch - 1)
    world.run(world.retraction(EpochRange(0, 1)))
    world.run(world.reinstatement(void))
    check(world)
    assert world.run(world.reinstatement(void)) == Outcome(0, 0)
    assert world.run(world.retraction(EpochRange(0, 1))) == Outcome(0, 0)


def test_a_row_expired_again_after_a_rollback_is_not_expired_twice() -> None:
    world = aged()
    state = world.tenure.barrier.epoch
    assert world.expire(A, 3)
    world.barrier(rolling_back(state))
    void = EpochRange(state, world.tenure.barrier.epoch - 1)
    world.barrier(withdrawing(range(void.last + 1)))
    assert world.expire(A, 100)
    world.run(world.reinstatement(void))
    check(world)


class Course:
    """What may happen to a model, at random; retractions are killed in the middle and finished later."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.rng = self.world.rng
        self.voids: list[EpochRange] = []
        self.unfinished: list[EpochRange] = []

    @property
    def epoch(self) -> int:
        return self.world.tenure.barrier.epoch

    def train(self) -> None:
        self.world.publish(1, spread=6)

    def forget(self) -> None:
        self.world.barrier(withdrawing(range(max(0, self.epoch))))

    def expire(self) -> None:
        self.world.expire(MODEL.tables[self.rng.integers(2)], int(self.rng.integers(self.epoch + 1)))

    def retract(self) -> None:
        if not self.epoch:
            return
        first = int(self.rng.integers(self.epoch))
        epochs = EpochRange(first, int(self.rng.integers(first, self.epoch)))
        try:
            self.world.run(self.world.retraction(epochs), DiesAt(int(self.rng.integers(1, 6))))
        except Killed:
            self.unfinished.append(epochs)

    def finish(self) -> None:
        while self.unfinished:
            epochs = self.unfinished.pop()
            self.world.run(self.world.retraction(epochs))
            assert self.world.run(self.world.retraction(epochs)) == Outcome(0, 0)

    def roll_back(self) -> None:
        to = int(self.rng.integers(oldest_target(self.world.tenure.barrier), self.epoch + 1))
        self.voids.append(EpochRange(to, self.epoch))
        self.world.barrier(rolling_back(to))

    def reinstate(self) -> None:
        self.finish()
        if self.voids:
            void = self.voids[self.rng.integers(len(self.voids))]
            self.world.run(self.world.reinstatement(void))
            assert self.world.run(self.world.reinstatement(void)) == Outcome(0, 0)


CHANCES = {
    Course.train: 0.3,
    Course.forget: 0.2,
    Course.expire: 0.2,
    Course.retract: 0.12,
    Course.finish: 0.06,
    Course.roll_back: 0.06,
    Course.reinstate: 0.06,
}


@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_an_expired_row_is_what_came_after_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.streams.operations.operation._CHUNK_BYTES", 200)
    course = Course(seed)
    events, chances = list(CHANCES), list(CHANCES.values())
    for _ in range(50):
        events[course.rng.choice(len(events), p=chances)](course)
        if not course.unfinished:
            check(course.world)
    course.finish()
    check(course.world)


def test_a_retraction_killed_after_any_of_its_chunks_is_finished_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.streams.operations.operation._CHUNK_BYTES", 200)

    for number in range(1, 40):
        world = aged()
        world.expire(A, 3)
        world.expire(B, 3)
        try:
            world.run(world.retraction(EpochRange(0, 1)), DiesAt(number))
        except Killed:
            world.barrier()
            world.expire(A, 3)  # of what half a retraction has left behind, nothing is idle
            world.run(world.retraction(EpochRange(0, 1)))
            check(world)
        else:
            assert number > 4, "the retraction was one chunk"
            return
    raise AssertionError("it never came to an end")


def test_an_expiry_is_fenced_by_a_later_operation() -> None:
    world = aged()

    class Intruder(Faults):
        def interrupt(self, moment: str) -> None:
            if moment == "begin":
                world.run(world.retraction(EpochRange(0, 1)))

    with pytest.raises(Fenced):
        world.expire(A, 3, Intruder())
    check(world)


def test_a_rollback_in_between_is_told() -> None:
    world = aged()
    expiry = RowsExpiry(Target(world.cluster, world.catalogue, world.model), A, 3, 1)
    world.barrier(rolling_back(4))
    expiry.publish(1, np.array([1], np.uint64), np.ones((1, A.dim), np.int32))
    with pytest.raises(RolledBack, match="while expire/a/3-6 ran"):
        expiry.check_generation()
    expiry.close()
    assert all(entry.block.purpose is not Purpose.EXPIRE for entry in Truth(world.broker, "ctr").accepted)


def test_names_say_what_they_are_about_and_no_trainer_has_one() -> None:
    name = ExpiryName("embedding", 40, 52)
    assert str(name) == "expire/embedding/40-52"
    assert expiry_name(str(name)) == name
    assert [expiry_name(trainer) for trainer in ("trainer-1", "expire/x", "expire/x/1", "import/x/1-2")] == [None] * 4
    world = World(1)
    with pytest.raises(ConfigurationError, match="it is an operation's"):
        world.publisher("expire/a/1-2")


def test_states_by_age_and_the_oldest_that_counts() -> None:
    states = {epoch: ModelState("ctr", 1, epoch, 0, (), written_us=epoch * 10_000_000) for epoch in (3, 5, 9)}
    assert [state_of_age(states, 100_000_000, age) for age in (0, 10, 40, 50, 70, 71)] == [9, 9, 5, 5, 3, 0]
    barrier = beginning(1)
    assert oldest_target(barrier) == 0
    assert oldest_target(withdrawing([1, 2])(barrier)) == 0
    assert oldest_target(withdrawing([0, 1, 2, 4])(barrier)) == 3
