"""The detectors that every model has."""

from ekko.schemas.signals import OUT_OF_RANGE, OVERFLOWED, REFUSED
from ekko.streams.health.detectors import GRADIENTS, Detector, GuardBand, Jump, Occurs, Rate, Share
from ekko.streams.health.drift import Drift

LOSS = "log_loss"
AUC = "auc"
NOT_FINITE = "not_finite"

WATCHED = frozenset({LOSS, AUC, NOT_FINITE, GRADIENTS, OUT_OF_RANGE, OVERFLOWED, REFUSED})
"""Metrics that the detectors look at; signals of others do not concern health."""


def standard_detectors() -> list[Detector]:
    """Fresh ones: those of loss, AUC and predictions need quality samples, the others nothing but traffic.

    Blocks that a fan-out refuses never reach a row, so they make a model suspect and no more.
    """
    return [
        GuardBand(LOSS),
        GuardBand(AUC, band=0.05, higher_is_better=True),
        Drift(LOSS),
        Occurs(NOT_FINITE),
        Share(OUT_OF_RANGE, GRADIENTS),
        Occurs(OVERFLOWED),
        Occurs(REFUSED, grave=False),
        Jump(GRADIENTS),
        Rate(GRADIENTS),
    ]
