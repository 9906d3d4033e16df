"""The rows of one table as a store streams them."""

from collections.abc import Iterator
from typing import BinaryIO, cast

import urllib3

from ekko.ops.exchange.holders import Holder
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import ConnectionFailed
from ekko.storage.serving.row_stream import Run, decode_runs
from ekko.storage.serving.wire import decode_error

_TIMEOUT = urllib3.Timeout(connect=2.0, read=60.0)
"""Between two frames; before the last one of an export the store reads all of its rows again."""


def read_rows(
    model: str, table: TableDeclaration, holder: Holder, state: int, *, idle_since: int | None = None
) -> Iterator[Run]:
    """Rows of the holder's shards as of a model state, in runs; see `row_stream`.

    Args:
        idle_since: only rows into which nothing has arrived in this epoch or later.

    Raises:
        ConnectionFailed: the store does not answer, or falls silent.
        EkkoError: what it answered, or how it ended the stream.
    """
    shards = ",".join(map(str, holder.shards))
    url = f"http://{holder.address}/v1/models/{model}/tables/{table.name}/rows?as_of={state}&shards={shards}"
    if idle_since is not None:
        url += f"&idle_since={idle_since}"
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as pool:
        try:
            response = pool.request("GET", url, preload_content=False)
            if response.status >= 300:
                raise decode_error(response.read(), f"store {holder.address} answered {response.status}")
            yield from decode_runs(cast("BinaryIO", response), table.name, table.dim)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionFailed(
                f"store {holder.address}: {error}", hint="check that `ekko store` runs there"
            ) from error
