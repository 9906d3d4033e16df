"""One catalogue for all threads of a process."""

import threading

from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster


class SharedCatalogue:
    """A `Catalogue` whose reading is done by one thread at a time; what was read may be looked at by all."""

    def __init__(self, cluster: Cluster) -> None:
        self._catalogue = Catalogue(cluster)
        self._lock = threading.Lock()

    @property
    def codec(self) -> Codec:
        """See `Catalogue.codec`."""
        return self._catalogue.codec

    @property
    def end(self) -> int:
        """See `Catalogue.end`."""
        return self._catalogue.end

    @property
    def models(self) -> dict[str, ModelDeclaration]:
        """See `Catalogue.models`."""
        return self._catalogue.models

    @property
    def regions(self) -> dict[str, RegionDeclaration]:
        """See `Catalogue.regions`."""
        return self._catalogue.regions

    def model(self, name: str) -> ModelDeclaration:
        """The live model `name`; raises ConfigurationError listing those that exist."""
        with self._lock:
            return self._catalogue.model(name)

    def region(self, name: str) -> RegionDeclaration:
        """See `Catalogue.region`."""
        return self._catalogue.region(name)

    def decode(self, value: bytes | None) -> object:
        """See `Codec.decode`, with the writer schemas read so far."""
        message: object = self._catalogue.codec.decode(value)
        return message

    def model_as_of(self, name: str, offset: int) -> ModelDeclaration | None:
        """See `Catalogue.model_as_of`."""
        with self._lock:
            return self._catalogue.model_as_of(name, offset)

    def existed_at(self, offset: int, timestamp_ms: int) -> bool:
        """See `Catalogue.existed_at`."""
        with self._lock:
            return self._catalogue.existed_at(offset, timestamp_ms)

    def poll(self) -> bool:
        """See `Catalogue.poll`; returns at once."""
        with self._lock:
            return self._catalogue.poll()

    def refresh(self, timeout_s: float = 10.0) -> int:
        """See `Catalogue.refresh`."""
        with self._lock:
            return self._catalogue.refresh(timeout_s)

    def reach(self, offset: int, timeout_s: float = 10.0) -> None:
        """See `Catalogue.reach`."""
        with self._lock:
            self._catalogue.reach(offset, timeout_s)

    def close(self) -> None:
        """See `Catalogue.close`."""
        self._catalogue.close()
