"""The publisher: what a trainer holds."""

from ekko.streams.publisher.admission import Admission
from ekko.streams.publisher.publisher import Publisher

__all__ = ["Admission", "Publisher"]
