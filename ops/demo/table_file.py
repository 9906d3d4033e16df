"""Interactions from any file of delimited text: CSV, TSV, MovieLens' own formats. Dirty records are left out, counted.

Understood are a header line or none, quoted fields with delimiters or line breaks in them, ids of any text, times as
seconds since 1970 or ISO 8601 (without a zone: UTC), and records in any order. Text is UTF-8, or UTF-16 with its mark.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, pairwise
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ekko.ops.demo.columns import EXAMPLE, Columns
from ekko.ops.demo.features import encode_features
from ekko.ops.demo.interactions import Interactions, join_features
from ekko.schemas.errors import ConfigurationError

MISSING = frozenset({"", "-1", "na", "n/a", "nan", "none", "null", "\\n"})
"""What stands in files where an id is not known, in lower case."""
NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
_UNIT = "\x1f"
"""Stands for a delimiter of two characters, which the csv module does not know."""


class Record(NamedTuple):
    """One usable line."""

    time: int
    user: str
    item: str
    label: float


def read_table(path: Path, columns: Columns) -> Interactions:
    """The file's interactions in the order of their times; equal times keep the file's order.

    Left out and counted: malformed records, missing ids, times and labels that cannot be understood, and records that
    repeat user, item and time of an earlier one.

    Raises:
        ConfigurationError: no such file, a column that it does not have, or no usable record.
    """
    dropped: Counter[str] = Counter()
    try:
        with path.open(encoding=_encoding(path), errors="replace", newline="") as file:
            records = list(_records(path, file, columns, dropped))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", hint="name a file with --data") from error
    late = sum(later.time < earlier.time for earlier, later in pairwise(records))
    records = _distinct(sorted(records, key=lambda record: record.time), dropped)
    if not records:
        told = ", ".join(f"{reason} {count}x" for reason, count in dropped.items()) or "it is empty"
        raise ConfigurationError(f"{path} holds no usable record: {told}", hint="are the --columns right?")
    notice = f"Your own data. {late:,} records stood before an earlier one in the file: put into the order of time."
    return _interactions(records, path.name, notice, dropped)


def _records(path: Path, lines: Iterator[str], columns: Columns, dropped: Counter[str]) -> Iterator[Record]:
    first = next(lines, "")
    delimiter = _delimiter(first)
    rows = csv.reader(_again(first, lines, delimiter), delimiter=_UNIT if delimiter == "::" else delimiter)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise ConfigurationError(f"{path}: the first line is none of a table: {error}", hint=EXAMPLE) from error
    places = columns.places(header, path)
    if columns.numbered:
        record = _record(header, places, columns, dropped)
        if record is not None:
            yield record
    for row in _well_formed(rows, len(header), dropped):
        record = _record(row, places, columns, dropped)
        if record is not None:
            yield record


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _delimiter(first: str) -> str:
    """The delimiter of a file, by its first line: the first of these that occurs in it."""
    return next((sign for sign in ("::", "\t", ";", ",", "|") if sign in first), ",")


def _again(first: str, lines: Iterator[str], delimiter: str) -> Iterator[str]:
    """All lines from the first on, with a delimiter that the csv module can read."""
    every = chain((first,), lines)
    return every if delimiter != "::" else (line.replace("::", _UNIT) for line in every)


def _well_formed(rows: Iterator[list[str]], width: int, dropped: Counter[str]) -> Iterator[list[str]]:
    """Rows as wide as the first one."""
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            dropped["malformed record"] += 1
            continue
        if row is None:
            return
        if len(row) == width:
            yield row
        elif row:  # an empty line is no record
            dropped["malformed record"] += 1


def _record(row: list[str], places: dict[str, int], columns: Columns, dropped: Counter[str]) -> Record | None:
    user, item, time_text, label_text = (row[places[name]].strip() for name in ("user", "item", "time", "label"))
    time, label = _time(time_text), columns.label_of(label_text)
    if any(text.lower() in MISSING or NOT_TEXT in text for text in (user, item)):
        dropped["user or item missing"] += 1
    elif time is None:
        dropped["time not understood"] += 1
    elif label is None:
        dropped["label not understood"] += 1
    else:
        return Record(time, user, item, label)
    return None


def _time(text: str) -> int | None:
    """Seconds since 1970; None if it is no time, or not after 1970."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return int(seconds) if isfinite(seconds) and 0 < seconds < 2**63 else None


def _distinct(records: list[Record], dropped: Counter[str]) -> list[Record]:
    first: dict[tuple[str, str, int], Record] = {}
    for record in records:
        first.setdefault((record.user, record.item, record.time), record)
    if len(first) < len(records):
        dropped["duplicate of an earlier record"] += len(records) - len(first)
    return list(first.values())


def _interactions(records: list[Record], origin: str, notice: str, dropped: Counter[str]) -> Interactions:
    users, user_rows = np.unique([record.user for record in records], return_inverse=True)
    items, item_rows = np.unique([record.item for record in records], return_inverse=True)
    user_features = encode_features([[("user", user)] for user in users.tolist()])
    item_features = encode_features([[("item", item)] for item in items.tolist()])
    keys, values = join_features(user_features, item_features, user_rows, item_rows)
    times = np.array([record.time for record in records], np.int64)
    labels = np.array([record.label for record in records], np.float32)
    return Interactions(origin, notice, times, labels, keys, values, 2, dict(dropped))
