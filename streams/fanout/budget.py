"""A region's bandwidth: express first, bulk with what is left, and a part that bulk is sure of once it has waited."""

import math
import threading
from dataclasses import dataclass

from ekko.streams.fanout.pending import Allowance

HORIZON_S = 0.1
"""A transaction carries at most this much of the budget in bulk bytes: express never waits longer behind it."""

SAVED_S = 1.0
"""Budget that is not used is kept for so long: transactions on a slow link come less often than every HORIZON_S."""


HEAD_BYTES, HEADS_SHARE = 350, 0.25
"""What a record costs beside its rows (heads of batch and request, its part of the transaction's; measured), and the
part of the rate that heads may take while the bucket is in debt."""

LONGEST_GATHER_S = 0.5
"""However thin the link, express waits no longer for others to travel with."""


EXPRESS_PART = 0.5
"""Express may take this part of the rate. What it takes more is waited for by the urgent rows after it."""

MOST_EXCESS, LEAST_EXCESS = 4.0, 0.02
"""Bounds of `Budget.excess`: the upper one holds for a burst, before its bytes are known."""

_LOAD_S = 1.0


@dataclass(slots=True)
class _Excess:
    """How much may be express so that it takes EXPRESS_PART of the rate, by what it has taken of late."""

    value: float = MOST_EXCESS
    recent_bytes: float = 0.0
    updated_s: float = 0.0

    def add(self, express_bytes: float, rate: float, now_s: float) -> None:
        """Twice as much as it may take halves it in a second, and so on: that settles within some seconds."""
        elapsed_s = min(max(0.0, now_s - self.updated_s), _LOAD_S)
        load = max(self.recent_bytes / (_LOAD_S * EXPRESS_PART * rate), 0.1)
        self.value = min(max(self.value * load**-elapsed_s, LEAST_EXCESS), MOST_EXCESS)
        self.recent_bytes = max(0.0, self.recent_bytes * math.exp(-elapsed_s / _LOAD_S) + express_bytes)
        self.updated_s = max(now_s, self.updated_s)


@dataclass(slots=True)
class _Bucket:
    """Tokens (bytes) that come at `rate` a second, at most SAVED_S of them; may be in debt."""

    rate: float
    tokens: float
    updated_s: float

    def refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self.updated_s)
        self.tokens = min(self.tokens + self.rate * elapsed_s, self.rate * SAVED_S)
        self.updated_s = max(now_s, self.updated_s)

    def worthwhile(self, rate: float) -> float:
        """What may go now: not too little, for many transactions of a row or two cost more than they carry."""
        horizon = rate * HORIZON_S
        return min(self.tokens, horizon) if self.tokens >= horizon / 2 else 0.0


class Budget:
    """Token bucket over all that a region's fan-out instance sends, in bytes on the wire (see `wire.WireMeter`).

    Express is sent at once and may put the bucket into debt (then see `gather_s`); bulk gets what is there. Bulk that
    has waited longer than its maximal age gets `bulk_share` of the rate, by age, even when express takes everything:
    that is its starvation bound. Thread-safe.

    Args:
        rate: bytes a second; None: unlimited.
        bulk_share: part of the rate that overdue bulk is sure of, 0 to 1.
    """

    def __init__(self, rate: float | None, *, bulk_share: float = 0.25, now_s: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._rate, self._bulk_share = rate, bulk_share
        self._all = None if rate is None else _Bucket(rate, rate * HORIZON_S, now_s)
        self._sure = None if rate is None else _Bucket(rate * bulk_share, 0.0, now_s)
        self._excess = _Excess(updated_s=now_s)

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._all is not None

    def set_share(self, share: float) -> None:
        """Let this instance have only this part of the region's rate, 0 to 1: others have the rest."""
        if self._rate is None or self._all is None or self._sure is None:
            return
        with self._lock:
            # A share of nothing still lets a rate stand: nothing will ask for it.
            self._all.rate = self._rate * (share or 1.0)
            self._sure.rate = self._all.rate * self._bulk_share

    def for_bulk(self, now_s: float, *, overdue: bool) -> Allowance:
        """Bytes of bulk that may go in a transaction now; infinite without a budget."""
        if self._all is None or self._sure is None:
            return Allowance(math.inf)
        with self._lock:
            self._all.refill(now_s)
            self._sure.refill(now_s)
            in_turn = self._sure.worthwhile(self._all.rate) if overdue else 0.0
            return Allowance(max(self._all.worthwhile(self._all.rate), in_turn), in_turn)

    def excess(self, now_s: float) -> float:
        """How many times the part of rows that the percentile says may be express, so that the link carries them.

        It follows the link: express that takes more than EXPRESS_PART of the rate becomes less, and more again.
        """
        if self._all is None:
            return math.inf
        with self._lock:
            self._excess.add(0.0, self._all.rate, now_s)
            return self._excess.value

    def gather_s(self, records: int) -> float:
        """How long to let others join before the next transaction, after one of so many records.

        0 unless the bucket is in debt: then transactions as fast as they can be would spend a thin link on their heads.
        """
        if self._all is None or self._all.tokens >= 0:
            return 0.0
        return min(records * HEAD_BYTES / (HEADS_SHARE * self._all.rate), LONGEST_GATHER_S)

    def spend(self, express_bytes: float, bulk_bytes: float, in_turn_bytes: float, now_s: float) -> None:
        """Account for what was sent, in bytes on the wire; `in_turn_bytes` of the bulk were sent for their age.

        Less than nothing is given back: what an estimate took too much.
        """
        if self._all is None or self._sure is None:
            return
        with self._lock:
            self._all.refill(now_s)
            self._sure.refill(now_s)
            self._excess.add(express_bytes, self._all.rate, now_s)
            # Debt is bounded by a second of budget: after a burst of express, bulk does not pay for ever.
            self._all.tokens = max(self._all.tokens - express_bytes - bulk_bytes, -self._all.rate)
            self._sure.tokens = max(self._sure.tokens - in_turn_bytes, -self._sure.rate)
