"""What `ekko reinstate` says before it does it; that it does it, `test_rollback.py` and the operations' tests show."""

from ekko.ops.reinstate import summary
from ekko.schemas.epochs import EpochRange


def test_what_other_rollbacks_cover_is_named() -> None:
    void = EpochRange(4, 9)
    whole = "what epochs 4 to 9 held is published again"
    assert summary(void, (void,)) == whole
    assert summary(void, (EpochRange(1, 3), void, EpochRange(10, 12))) == whole
    others = (EpochRange(1, 4), EpochRange(6, 6), EpochRange(7, 30))
    assert summary(void, (*others, void)) == (
        f"{whole}; of epochs 4 to 4, 6 to 9 only what had been reinstated before: another rollback covers them, too"
    )
