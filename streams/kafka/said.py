"""What librdkafka says on the side goes to the logger `ekko.kafka`, the same thing not over and over again."""

import logging
import re
import time

REPEAT_AFTER_S = 30.0
_VARIES = re.compile(r"\(after \d+ms|#(?:consumer|producer)-\d+")


class _SaidLately(logging.Filter):
    """Drops what was said less than `REPEAT_AFTER_S` ago: a client without broker says 'refused' 70 times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        text = _VARIES.sub("", record.getMessage())
        now_s = time.monotonic()
        lately = now_s - self._said_s.get(text, -REPEAT_AFTER_S) < REPEAT_AFTER_S
        if not lately:
            self._said_s = {said: at for said, at in self._said_s.items() if now_s - at < REPEAT_AFTER_S} | {
                text: now_s
            }
        return not lately


log = logging.getLogger("ekko.kafka")
log.addFilter(_SaidLately())
