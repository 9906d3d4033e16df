"""The error tree: every failure Ekko raises on purpose is an `EkkoError` that says what, where and what to do."""


class EkkoError(Exception):
    """Root of the tree.

    Args:
        message: what went wrong and where, one sentence.
        hint: what the reader can do about it, one sentence (may be empty).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(EkkoError):
    """A setting, flag or declaration is wrong; nothing was started or changed."""


class ConnectionFailed(EkkoError):
    """A broker or store cannot be reached, resolved or authenticated within its time-out."""


class TopicMissing(EkkoError):
    """A topic that must exist does not; nothing creates topics on the side."""


class CatalogueConflict(EkkoError):
    """A declaration contradicts what the catalogue holds (a dim or a shard count cannot change)."""


class BadInput(EkkoError):
    """Values, keys or bytes that no row may receive: NaN, infinity, out of range, wrong shape or dtype."""


class OutOfRange(BadInput):
    """Values that are not finite, or beyond the range of their table."""


class FormatError(BadInput):
    """Bytes that are not a record of ours: bad magic, unknown fingerprint, truncated or contradictory body."""


class FormatTooNew(EkkoError):
    """A record's format version is newer than this reader: the shard halts until the software is upgraded."""


class GapError(EkkoError):
    """Offsets or seqs that must be contiguous are not, or are gone from the log: going on would mean wrong rows."""


class Fenced(EkkoError):
    """Another process has taken over this transactional identity; this one must stop writing."""


class CommitUncertain(EkkoError):
    """A transaction whose fate is unknown: handled as a takeover (fence, read back, go on from what is committed)."""


class PublishUncertain(EkkoError):
    """A delivery of unknown fate: the deltas may be in the log or not; they are never sent again as another record."""


class Purged(EkkoError):
    """A record that its writer dropped before it was sent: it is not in the log."""


class QueueFull(EkkoError):
    """The bounded publish queue stayed full for the whole time-out: explicit back-pressure, nothing was enqueued."""


class RolledBack(EkkoError):
    """The model was rolled back: deltas computed from the old parameters are refused until the trainer has pulled."""


class StoreCorrupt(EkkoError):
    """What RocksDB holds fails a check; the store refuses to serve it."""


class StoreLocked(EkkoError):
    """Another process holds the store's folder."""


class StateUnavailable(EkkoError):
    """A model state that this replica cannot serve or undo (withdrawn, below its bound, or not complete yet)."""


class NotReady(EkkoError):
    """The replica has not caught up yet; ask another one or wait."""


class NotOwned(EkkoError):
    """Keys of shards that this replica does not hold; ask one that does."""


class MemoryExhausted(EkkoError):
    """A stated memory bound is reached: refused instead of being killed."""


class TransactionAborted(EkkoError):
    """A transaction was aborted and nothing of it is in the log; the writer may try again."""


class StoreUnwritable(EkkoError):
    """The store cannot write its folder (full, read-only, failing disk): nothing durable changed, memory is intact."""
