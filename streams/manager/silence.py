"""The alarm of a model without barriers: settled places stand still then, and takeovers need them still to be kept."""

import logging
from collections.abc import Iterable
from math import inf

from ekko.schemas import topics as names
from ekko.schemas.errors import ConnectionFailed, TopicMissing
from ekko.streams.log import Cluster

_log = logging.getLogger(__name__)

_SHARE = 0.25
"""Of the shortest retention: late enough not to cry at a restart, early enough for a person to mend it in time."""

_LOOK_S = 60.0


def shortest_retention_s(cluster: Cluster, topics: Iterable[str]) -> float:
    """The shortest time for which one of the topics that are there keeps records, seconds; infinity if all for ever.

    Raises:
        ConnectionFailed: the brokers do not answer.
    """
    return min((_retention_s(cluster, topic) for topic in topics), default=inf)


def _retention_s(cluster: Cluster, topic: str) -> float:
    try:
        kept_ms = int(cluster.topic_settings(topic).get("retention.ms", -1))
    except TopicMissing:  # just deleted, or not made yet
        return inf
    return inf if kept_ms < 0 else kept_ms / 1e3


def is_overdue(age_s: float, retention_s: float) -> bool:
    """Whether the last barrier is so old that somebody must act."""
    return age_s > _SHARE * retention_s


class Silence:
    """Looks once a minute whether a model's last barrier is overdue, and says so as often as it is.

    Attributes:
        overdue: what was found last.
    """

    def __init__(self, cluster: Cluster, model: str) -> None:
        self.overdue = False
        self._cluster, self._model = cluster, model
        self._look_s = 0.0

    def look(self, barrier_s: float, lanes_s: Iterable[float], now_s: float) -> None:
        """Look if it is time.

        Args:
            barrier_s: when the last known barrier was written, seconds since 1970; 0 if none is known.
            lanes_s: for how long each region keeps the model's lanes, as far as known, seconds.
        """
        if now_s < self._look_s or not barrier_s:
            return
        self._look_s = now_s + _LOOK_S
        age_s = now_s - barrier_s
        try:
            retention_s = min([shortest_retention_s(self._cluster, [names.deltas(self._model)]), *lanes_s])
        except ConnectionFailed as error:
            _log.warning("model %s: how long its log is kept is not known: %s", self._model, error)
            return
        self.overdue = is_overdue(age_s, retention_s)
        if self.overdue:
            _log.critical(
                "model %s: no barrier for %.0f s, more than a quarter of the %.0f s for which its log is kept: "
                "takeovers will soon be impossible",
                *(self._model, age_s, retention_s),
            )
