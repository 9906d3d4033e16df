"""From which trainers blocks came, for the monitor: it judges who has fallen silent. Never on an update's path."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ekko.schemas.epochs import Barrier


class Heard(NamedTuple):
    """Blocks of one trainer: how many, and when it published the newest, microseconds since 1970 by its own clock."""

    blocks: int = 0
    published_us: int = 0

    def plus(self, other: "Heard") -> "Heard":
        """Both."""
        return Heard(self.blocks + other.blocks, max(self.published_us, other.published_us))


@dataclass(slots=True)
class TrainerNews:
    """What is to be told about a model's trainers.

    Attributes:
        heard: by trainer, since it was last told.
        blocked: the trainers that barriers read since then deny, and when the newest of them was written.
    """

    heard: dict[str, Heard] = field(default_factory=dict)
    blocked: dict[str, int] = field(default_factory=dict)


class TrainersHeard:
    """Gathers it from all shard groups, whatever their threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._news: defaultdict[str, TrainerNews] = defaultdict(TrainerNews)

    def add(self, model: str, heard: Mapping[str, Heard]) -> None:
        """Blocks of these trainers were read."""
        with self._lock:
            news = self._news[model].heard
            for trainer, more in heard.items():
                news[trainer] = news.get(trainer, Heard()).plus(more)

    def follow(self, model: str, barriers: Iterable[Barrier]) -> None:
        """These barriers were read."""
        with self._lock:
            for barrier in barriers:
                self._news[model].blocked.update(dict.fromkeys(barrier.denied, barrier.written_us))

    def take(self, model: str) -> TrainerNews:
        """What came since the last call."""
        with self._lock:
            return self._news.pop(model, TrainerNews())
