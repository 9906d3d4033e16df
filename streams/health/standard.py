"""The detectors that every model has."""

from ekko.streams.health.detectors import GRADIENTS, Detector, GuardBand, Jump, Occurs, Rate, Silence
from ekko.streams.health.drift import Drift

LOSS = "log_loss"
AUC = "auc"
NOT_FINITE = "not_finite"

WATCHED = frozenset({LOSS, AUC, NOT_FINITE, GRADIENTS})
"""Metrics that the detectors look at; signals of others do not concern health."""


def standard_detectors() -> list[Detector]:
    """Fresh ones: the first four need quality samples, the others nothing but traffic."""
    return [
        GuardBand(LOSS),
        GuardBand(AUC, band=0.05, higher_is_better=True),
        Drift(LOSS),
        Occurs(NOT_FINITE),
        Jump(GRADIENTS),
        Rate(GRADIENTS),
        Silence(GRADIENTS),
    ]
