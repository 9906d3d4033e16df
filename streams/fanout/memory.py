"""The bound of what waits in memory, over all shards of a fan-out process."""


class MemoryBound:
    """Shares a number of bytes out to the shards that this instance works on.

    Args:
        total: bytes for all shards together.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._shards = 1

    def set_shards(self, shards: int) -> None:
        """So many shards share the memory from now on."""
        self._shards = max(shards, 1)

    @property
    def a_shard(self) -> int:
        """Bytes that what waits in one shard may take."""
        return self._total // self._shards

    def has_room(self, used: int) -> bool:
        """Whether `used` bytes may wait in a shard: the other half is for what is computed again."""
        return used <= self.a_shard // 2
