"""The detectors that every model has."""

from ekko.schemas.signals import OUT_OF_RANGE, OVERFLOWED, REFUSED
from ekko.streams.health.board import Track
from ekko.streams.health.detectors import GRADIENTS, Detector, GuardBand, Jump, Occurs, Rate, Share
from ekko.streams.health.drift import Drift

LOSS = "log_loss"
AUC = "auc"
NOT_FINITE = "not_finite"

LABELLED = frozenset({LOSS, AUC, NOT_FINITE})
"""Metrics that need labels, but for predictions that are no numbers, of which a loss tells as well."""
UNLABELLED = frozenset({NOT_FINITE, GRADIENTS, OUT_OF_RANGE, OVERFLOWED, REFUSED})
"""Metrics that are there at once."""
WATCHED = LABELLED | UNLABELLED
"""Metrics that the detectors look at; signals of others do not concern health."""


def labelled_detectors() -> list[Detector]:
    """Fresh ones that look at quality samples."""
    return [
        GuardBand(LOSS),
        GuardBand(AUC, band=0.05, higher_is_better=True),
        Drift(LOSS),
        Occurs(NOT_FINITE),
    ]


def unlabelled_detectors() -> list[Detector]:
    """Fresh ones that need no labels."""
    return [Occurs(NOT_FINITE), *_traffic_detectors()]


def standard_detectors() -> list[Detector]:
    """Fresh ones of both kinds, each once."""
    return [*labelled_detectors(), *_traffic_detectors()]


def _traffic_detectors() -> list[Detector]:
    """Fresh ones that need nothing but what trainers publish.

    Blocks that a fan-out refuses never reach a row, so they make a model suspect and no more.
    """
    return [
        Share(OUT_OF_RANGE, GRADIENTS),
        Occurs(OVERFLOWED),
        Occurs(REFUSED, grave=False),
        Jump(GRADIENTS),
        Rate(GRADIENTS),
    ]


def tracks(grace_s: float, label_delay_s: float) -> tuple[Track, ...]:
    """What waits how long: the guards without labels never longer than `grace_s`, however late labels come."""
    if label_delay_s <= grace_s:
        return (Track(grace_s, WATCHED, standard_detectors),)
    return (
        Track(grace_s, UNLABELLED, unlabelled_detectors),
        Track(label_delay_s, LABELLED, labelled_detectors),
    )
