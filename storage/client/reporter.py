"""What serving measures, on its way to the monitor: summed by second of event time, sent in the background."""

import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import BadInput, EkkoError
from ekko.schemas.signals import check_event_time
from ekko.storage.client import StoreClient

_log = logging.getLogger("ekko.signals")

NOT_FINITE = "not_finite"
"""Metric that counts observations that are NaN or infinite: they are no part of a sum."""

_MAX_WAITING = 10_000
"""Sums that may wait while no store answers; the oldest are dropped beyond: a signal is never worth memory."""


class SignalReporter:
    """Reports quality samples and request counts of one model; thread-safe, and never in a request's way.

    A label that comes late is reported with the time of its request: `event_s`. What cannot be sent within the bound on
    waiting sums, or is refused by the stores, is dropped and counted in `dropped`.

    Args:
        client: of the region's stores; it stays the caller's to close.
        interval_s: seconds between two sendings.
    """

    def __init__(self, client: StoreClient, *, interval_s: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self.dropped = 0
        self._client, self._interval_s, self._clock = client, interval_s, clock
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, str, str], tuple[float, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def sample(self, metric: str, values: npt.ArrayLike, *, cohort: str = "live", event_s: float | None = None) -> None:
        """Add observations of a metric (log_loss, auc, ctr ...), all of about the same moment.

        Args:
            metric: lower-case name.
            values: numbers of any shape.
            cohort: 'live', or 'baseline' for what was served from an older state.
            event_s: when they happened, seconds since 1970; None for now.

        Raises:
            BadInput: `event_s` is no number, before 1970, or more than an hour ahead.
        """
        numbers = np.asarray(values, np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        second = self._second(event_s)
        with self._lock:
            if len(finite):
                self._add(second, metric, cohort, float(finite.sum()), len(finite))
            if len(finite) < len(numbers):
                bad = len(numbers) - len(finite)
                self._add(second, NOT_FINITE, cohort, float(bad), bad)

    def requests(self, count: int = 1, *, cohort: str = "live") -> None:
        """Count requests for inference: the model's share of them is part of every score."""
        with self._lock:
            self._add(int(self._clock()), "requests", cohort, float(count), count)

    def flush(self) -> bool:
        """Send what waits, now; returns whether all of it was taken, or refused for good (and counted as dropped)."""
        with self._lock:
            waiting, self._sums = self._sums, {}
        for number, ((second, metric, cohort), (total, count)) in enumerate(sorted(waiting.items())):
            try:
                self._client.report(metric, total, count, cohort, event_us=second * 1_000_000)
            except BadInput as error:  # it never will be taken, and what comes after it must not wait for it
                _log.warning("a signal is refused: %s", error)
                self.dropped += count
            except EkkoError as error:
                _log.debug("signals cannot be sent: %s", error)
                self._put_back(dict(sorted(waiting.items())[number:]))
                return False
        return True

    def close(self) -> None:
        """Send what waits, once, and stop."""
        self._stop.set()
        self._thread.join()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def _second(self, event_s: float | None) -> int:
        now_s = self._clock()
        if event_s is None:
            return int(now_s)
        if not math.isfinite(event_s):
            raise BadInput(f"event_s={event_s} is no time", hint="pass seconds since 1970, or leave it out for now")
        check_event_time(int(event_s * 1e6), int(now_s * 1e6))
        return int(event_s)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.flush()

    def _put_back(self, waiting: dict[tuple[int, str, str], tuple[float, int]]) -> None:
        with self._lock:
            for (second, metric, cohort), (total, count) in waiting.items():
                self._add(second, metric, cohort, total, count)
            excess = len(self._sums) - _MAX_WAITING
            for key in sorted(self._sums)[: max(0, excess)]:
                self.dropped += self._sums.pop(key)[1]

    def _add(self, second: int, metric: str, cohort: str, total: float, count: int) -> None:
        known = self._sums.get((second, metric, cohort), (0.0, 0))
        self._sums[second, metric, cohort] = known[0] + total, known[1] + count
