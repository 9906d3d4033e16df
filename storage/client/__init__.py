"""What a serving process holds: the store client; no Kafka, no Faust, no RocksDB."""

from ekko.storage.client.client import StoreClient

__all__ = ["StoreClient"]
