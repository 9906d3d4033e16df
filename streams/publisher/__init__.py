"""The publisher: what a trainer holds."""

from ekko.streams.publisher.publisher import Publisher

__all__ = ["Publisher"]
