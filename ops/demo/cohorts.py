"""What serving tells about quality: log loss and AUC with live rows, beside those of the baseline cohort."""

import logging

import numpy as np

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.model import Batch, logits, take_batch
from ekko.ops.demo.plan import TABLE
from ekko.ops.demo.quality import Floats, exact_auc, log_losses
from ekko.schemas.errors import EkkoError
from ekko.schemas.replicas import ReplicaState
from ekko.storage.client import StoreClient
from ekko.storage.client.reporter import SignalReporter
from ekko.streams.health.standard import AUC, LOSS

SAMPLES_A_SECOND = 4
SAMPLE = 100
"""Interactions a sample."""
AHEAD_S = 2.0
"""Samples are taken so far ahead of the trainer, which tells its place with a delay: they must be new to it."""
BASELINE_EPOCHS = 4
"""The baseline cohort reads a state so many epochs old: older than detection takes."""

_log = logging.getLogger("ekko.demo.server")


class Upcoming:
    """The interactions that are soon to be learnt: users who come now, whose answers are known a little later."""

    def __init__(self, interactions: Interactions, rate: float) -> None:
        self._interactions = interactions
        self._rate = rate
        self._next = 0

    def follow(self, position: int) -> None:
        """The trainer was at this position a moment ago."""
        self._next = position + int(AHEAD_S * self._rate)

    def take(self) -> Batch | None:
        """The next sample; None at the end of the stream."""
        first, self._next = self._next, self._next + int(self._rate / SAMPLES_A_SECOND)
        stop = min(first + SAMPLE, len(self._interactions))
        return take_batch(self._interactions, first, stop) if first < stop else None


def baseline_state(state: ReplicaState) -> int | None:
    """The model state that the baseline cohort reads; None as long as the model is too young to have one."""
    chosen = state.complete - BASELINE_EPOCHS
    return chosen if chosen >= max(state.bound, 1) else None


def measure(scores: Floats, batch: Batch, reporter: SignalReporter, cohort: str) -> None:
    """Report what logits float32[N] are worth: N losses, and one AUC where there are both labels."""
    reporter.sample(LOSS, log_losses(scores, batch.labels), cohort=cohort)
    if 0 < np.count_nonzero(batch.labels) < len(batch.labels):
        reporter.sample(AUC, exact_auc(scores, batch.labels), cohort=cohort)


def report(batch: Batch, client: StoreClient, reporter: SignalReporter) -> None:
    """Score a sample with rows of both cohorts of a region; what the region cannot serve is left out."""
    try:
        live = client.lookup(TABLE, batch.keys)
        measure(logits(live.values, batch), batch, reporter, "live")
        chosen = baseline_state(live.state)
        if chosen is not None:
            old = client.lookup(TABLE, batch.keys, as_of=chosen)
            measure(logits(old.values, batch), batch, reporter, "baseline")
    except EkkoError as error:
        _log.warning("%s gives no sample of quality: %s", client.region, error)
