"""What a writer's records take on the wire: estimated when they are sent, put right when its client has counted."""

_KEPT = 0.9
"""Weight that earlier counts keep with every new one: the ratio follows the load within some seconds."""
_LEAST_RATIO, _MOST_RATIO = 0.02, 50.0


class WireMeter:
    """Bytes on the wire of one writer, requests and replies' heads included, from the bytes of its encoded records.

    Counts come later than records leave and may split a transaction, so single ratios mean little: sums do. Estimates
    and corrections add up to what was counted, exactly.

    Attributes:
        ratio: bytes on the wire a byte encoded, of late; 1 before anything was counted.
    """

    def __init__(self) -> None:
        self.ratio = 1.0
        self._total = 0
        self._estimated = self._encoded = 0.0
        self._recent_wire = self._recent_encoded = 0.0

    def sent(self, encoded: float) -> float:
        """Take note of records that were sent; returns what they take on the wire, as far as is known now."""
        self._encoded += encoded
        self._estimated += encoded * self.ratio
        return encoded * self.ratio

    def counted(self, total: int) -> float:
        """Take in the writer's own count of all bytes so far; returns by how much the estimates were too small."""
        wire, self._total = total - self._total, total
        if not wire:
            return 0.0
        missing, self._estimated = wire - self._estimated, 0.0
        self._recent_wire = _KEPT * self._recent_wire + wire
        self._recent_encoded = _KEPT * self._recent_encoded + self._encoded
        self._encoded = 0.0
        if self._recent_encoded:
            self.ratio = min(max(self._recent_wire / self._recent_encoded, _LEAST_RATIO), _MOST_RATIO)
        return missing
