"""The catalogue: models, regions and writer schemas, read by everybody and declared by `ekko model apply`."""

from ekko.streams.catalogue.view import PARTITION, Catalogue, mirrored

__all__ = ["PARTITION", "Catalogue", "mirrored"]
