"""One catalogue for all threads of a fan-out process."""

import threading
from typing import Any

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster


class SharedCatalogue:
    """A `Catalogue` behind a lock; reading it never waits for a broker, only `poll` and `reach` do."""

    def __init__(self, cluster: Cluster) -> None:
        self._catalogue = Catalogue(cluster)
        self._lock = threading.Lock()

    @property
    def end(self) -> int:
        """Catalogue offset (end) read so far."""
        return self._catalogue.end

    @property
    def models(self) -> dict[str, ModelDeclaration]:
        """Live models by name."""
        return self._catalogue.models

    def model(self, name: str) -> ModelDeclaration:
        """The live model `name`; raises ConfigurationError listing those that exist."""
        return self._catalogue.model(name)

    def region(self, name: str) -> RegionDeclaration:
        """The live region `name`; raises ConfigurationError listing those that exist."""
        return self._catalogue.region(name)

    def decode(self, value: bytes | None) -> Any:
        """See `Codec.decode`, with the writer schemas read so far."""
        return self._catalogue.codec.decode(value)

    def model_as_of(self, name: str, offset: int) -> ModelDeclaration | None:
        """See `Catalogue.model_as_of`."""
        with self._lock:
            return self._catalogue.model_as_of(name, offset)

    def existed_at(self, offset: int, timestamp_ms: int) -> bool:
        """See `Catalogue.existed_at`."""
        with self._lock:
            return self._catalogue.existed_at(offset, timestamp_ms)

    def poll(self) -> bool:
        """See `Catalogue.poll`, without waiting."""
        with self._lock:
            return self._catalogue.poll(0.0)

    def refresh(self, timeout_s: float) -> None:
        """See `Catalogue.refresh`."""
        with self._lock:
            self._catalogue.refresh(timeout_s)

    def reach(self, offset: int, timeout_s: float) -> None:
        """See `Catalogue.reach`."""
        with self._lock:
            self._catalogue.reach(offset, timeout_s)

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._catalogue.close()
