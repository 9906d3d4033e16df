"""Limits on everything, each with its reason. What can reject a block stands in the catalogue, not here."""

MAX_DIM = 4096
"""A row of 16 KiB: larger tensors are tables whose rows are slices."""

MAX_SHARDS = 256
"""Each shard is a partition in five topics; more would spend the broker on bookkeeping."""

MAX_ROWS_A_BLOCK = 65_536
"""Bounds the memory one record can ask of a reader."""

MAX_BLOCK_BYTES = 4 * 1024 * 1024
"""Publisher's own bound on a block, under any topic limit: keeps transactions short and buffers small."""

MAX_ADMISSION = 255
"""Touches of a key before it is published: what a trainer counts in one byte a key and hash."""

MAX_SEND_EVERY_S = 3_600.0
"""Cadence of a dense table: what waits for hours holds an epoch unsettled no longer, but nobody means it."""

NAME_PATTERN = r"[a-z][a-z0-9_-]{0,62}"
"""Models, tables and regions: parts of topic and folder names, so no dots, no upper case."""

MAX_TRAINER_LENGTH = 200
"""Characters of a trainer's name: it is carried by every block, and by every barrier while it is denied."""

MAX_VOIDS = 4_096
"""A barrier carries all voids in full; a model rolled back more often needs a person."""
