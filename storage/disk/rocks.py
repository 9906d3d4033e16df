"""RocksDB as the keeper of a store, and the only importer of rocksdict.

Cells never pass through RocksDB's memtable: each commit is sorted files, written beside the database, synced, and
ingested together, atomically (measured: 0.9-2.5 M rows/s against 0.1-0.3 M for writes). The lanes are their log.
"""

import functools
import secrets
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ChecksumType,
    DBCompressionType,
    Env,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
    WriteOptions,
)

from ekko.schemas.errors import EkkoError
from ekko.schemas.hashing import UInt64s
from ekko.storage.disk.commit_count import CommitCount
from ekko.storage.disk.disk_trouble import corrupt, unopened, unwritable
from ekko.storage.disk.durable import Batch, Bytes
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.packing import found_values, joined_keys, split_cells, write_cells
from ekko.storage.disk.sst_builder import SstBuilder
from ekko.storage.engine.cells import COMMITS, MANIFEST, VOIDS, end_of

_CELLS_AT_ONCE = 8192
_INLINE_CELLS = 4096
"""Smaller files are written on the spot (some milliseconds): no helper process is asked, or started, for them."""
_RUNS = 8
"""Flushes merged at a time: each merge reads and writes the whole base, and rows are read from disk only at a start."""

DATABASE, _INCOMING = "rocksdb", "incoming"


class RocksDurable:
    """One folder: `rocksdb/`, the database; `incoming/`, files to be ingested; `LOCK`; `commits`, their number.

    Raises:
        StoreLocked: another process has the folder open.
        StoreCorrupt: RocksDB cannot open what is there.
        StoreUnwritable: the folder cannot be made or written.
    """

    background = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._incoming = path / _INCOMING
        try:
            self._lock = FolderLock(path, "a store")
        except OSError as error:
            raise unwritable(path, error) from error
        self._builder = SstBuilder()
        self._noted = CommitCount(path)
        try:
            self._remove_orphans()
            self._database = _opened(path)
        except BaseException:
            self._release()
            raise
        try:
            self._commits = self._noted.checked(int.from_bytes(self._value(COMMITS) or b"", "big"))
        except BaseException:
            self.close()
            raise

    def allocate(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array in memory that the helper process shares."""
        return self._builder.allocate(shape, dtype)

    def discard(self) -> None:
        """See `Durable.discard`."""
        self._builder.discard()

    def commit(self, batch: Batch) -> None:
        """Write sorted files and ingest them together; see `Durable.commit`."""
        number = self._commits + 1
        # A helper that outlives its killed store by a moment may still write there: never to a name of ours.
        folder = self._incoming / f"{number}-{secrets.token_hex(8)}"
        try:
            folder.mkdir()
            if sum(len(cells.keys) for cells in batch.cells) <= _INLINE_CELLS:
                write_files(folder, batch, number)
            else:
                self._builder.build(folder, batch, number)
            ingestion = IngestExternalFileOptions()
            ingestion.set_move_files(True)
            self._database.ingest_external_file([str(file) for file in folder.iterdir()], ingestion)
            self._commits = number
            self._noted.write(number)
        except EkkoError:
            raise
        except Exception as error:  # rocksdict has no other
            raise unwritable(self._path, error) from error
        finally:
            self._builder.reset()
            shutil.rmtree(folder, ignore_errors=True)

    def erase(self, prefixes: Sequence[bytes]) -> None:
        """One range tombstone a prefix, and one file for all of them."""
        try:
            for prefix in prefixes:
                self._database.delete_range(prefix, end_of(prefix))
            self._database.flush()
        except Exception as error:
            raise unwritable(self._path, error) from error

    def manifest(self) -> bytes | None:
        """The last manifest committed."""
        return self._value(MANIFEST)

    def keep_voids(self, voids: bytes) -> None:
        """One synced write, the only one that passes through RocksDB's own log; see `Durable.keep_voids`."""
        synced = WriteOptions()
        synced.sync = True
        try:
            self._database.put(VOIDS, voids, synced)
        except Exception as error:
            raise unwritable(self._path, error) from error

    def kept_voids(self) -> bytes | None:
        """See `Durable.kept_voids`."""
        return self._value(VOIDS)

    def scan(self, prefix: bytes, width: int) -> Iterator[tuple[UInt64s, Bytes]]:
        """See `Durable.scan`; checksums are verified by RocksDB on the way."""
        reads = ReadOptions()
        reads.set_iterate_upper_bound(end_of(prefix))
        reads.set_readahead_size(4 << 20)
        flat = chain.from_iterable(self._database.items(from_key=prefix, read_opt=reads))
        reached = prefix
        try:
            while data := b"".join(islice(flat, 2 * _CELLS_AT_ONCE)):
                keys, values = split_cells(prefix, data, width)
                reached = prefix + int(keys[-1]).to_bytes(8, "big") + b"\0"
                yield keys, values
        except ValueError as error:
            raise corrupt(self._path, error) from error
        finally:
            del flat  # an iterator keeps the database open after `close`, and a traceback would keep the iterator
        self._check_end(reached, reads)

    def _check_end(self, reached: bytes, reads: ReadOptions) -> None:
        """Whether a scan ended because there was no more: rocksdict's iteration ends silently at a damaged block."""
        cells = self._database.iter(reads)
        cells.seek(reached)
        try:
            cells.status()
            more = cells.valid()
        except Exception as error:
            raise corrupt(self._path, error) from error
        finally:
            del cells  # as above
        if more:
            raise corrupt(self._path, "a scan ended before its end")

    def fetch(self, prefix: bytes, keys: UInt64s, width: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """See `Durable.fetch`."""
        try:
            found: list[bytes | None] = self._database.get([*joined_keys(prefix, keys)]) or []
            return found_values(found, width)
        except Exception as error:
            raise corrupt(self._path, error) from error

    def checkpoint(self, folder: Path) -> None:
        """Make `folder` hold the last commit, data files linked, while none is under way; or raise StoreUnwritable."""
        try:
            folder.mkdir(parents=True)
            Checkpoint(self._database).create_checkpoint(str(folder / DATABASE))
            self._noted.copy_to(folder)
        except Exception as error:
            raise unwritable(folder, error) from error

    def memory_bytes(self) -> int:
        """Bytes of the memory shared with the helper."""
        return self._builder.memory_bytes()

    def close(self) -> None:
        """Close the database, stop the helper, release the lock."""
        self._database.close()
        self._release()

    def _release(self) -> None:
        self._builder.close()
        self._lock.release()

    def _remove_orphans(self) -> None:
        """Files that a kill left between writing and ingesting."""
        try:
            shutil.rmtree(self._incoming, ignore_errors=True)
            self._incoming.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _value(self, key: bytes) -> bytes | None:
        try:
            return self._database.get(key)
        except Exception as error:
            raise corrupt(self._path, error) from error


def write_files(folder: Path, batch: Batch, number: int) -> None:
    """Write a batch, the store's commit of that number, as sorted and synced files that are to be ingested together.

    Large journals have files of their own: as nothing lies under their keys yet, RocksDB puts them at the bottom, where
    no compaction moves them again.
    """
    ordered = sorted(batch.cells, key=lambda cells: cells.prefix)
    alone = [cells for cells in ordered if cells.prefix < MANIFEST and len(cells.keys) > _INLINE_CELLS]
    for file, cells in enumerate(alone):
        writer = _writer(folder / f"{file}.sst")
        write_cells(writer, cells)
        writer.finish()
    together = [cells for cells in ordered if cells.prefix > MANIFEST or len(cells.keys) <= _INLINE_CELLS]
    writer = _writer(folder / f"{len(alone)}.sst")
    for cells in together:
        if cells.prefix < MANIFEST:
            write_cells(writer, cells)
    writer[MANIFEST] = batch.manifest
    writer[COMMITS] = number.to_bytes(8, "big")
    for cells in together:
        if cells.prefix > MANIFEST:
            write_cells(writer, cells)
    writer.finish()


def _writer(file: Path) -> SstFileWriter:
    writer = SstFileWriter(_options())
    writer.open(str(file))
    return writer


def _opened(path: Path) -> Rdict:
    database, options = path / DATABASE, _options()
    options.create_if_missing(not database.exists() or not any(database.iterdir()))
    try:
        return Rdict(str(database), options)
    except Exception as error:
        raise unopened(path, error) from error


@functools.cache
def _cache() -> Cache:
    """One block cache for all stores of the process."""
    return Cache(64 << 20)


@functools.cache
def _environment() -> Env:
    """Threads of RocksDB that merge files when nobody else needs the processor; flushes wait for none of them."""
    environment = Env()
    environment.lower_thread_pool_cpu_priority()
    return environment


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(_cache())
    table.set_block_size(16 << 10)
    table.set_bloom_filter(10, block_based=False)
    table.set_cache_index_and_filter_blocks(v=True)
    table.set_checksum_type(ChecksumType.xxh3())
    options = Options(raw_mode=True)
    options.set_env(_environment())
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())
    options.set_paranoid_checks(enabled=True)
    options.set_max_background_jobs(2)
    options.set_level_zero_file_num_compaction_trigger(_RUNS)
    # Erasures and voids are a few bytes: they must not wait for merges that have no processor.
    options.set_level_zero_slowdown_writes_trigger(1 << 30)
    options.set_level_zero_stop_writes_trigger(1 << 30)
    options.set_soft_pending_compaction_bytes_limit(0)
    options.set_hard_pending_compaction_bytes_limit(0)
    options.set_target_file_size_base(256 << 20)
    options.set_max_bytes_for_level_base(1 << 30)
    options.set_write_buffer_size(4 << 20)
    options.set_keep_log_file_num(4)
    return options
