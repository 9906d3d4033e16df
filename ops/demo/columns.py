"""Which columns of a file say who, what, when, and whether it was liked: ``user=userId,item=movieId,...``."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ekko.schemas.errors import ConfigurationError

NAMES = ("user", "item", "time", "label")
LISTED, LONGEST = 30, 40
"""Of the columns that a file has, so many are named when one is missing, and of each so many letters."""
EXAMPLE = "--data ratings.csv --columns 'user=userId,item=movieId,time=timestamp,label=rating>=4'"


@dataclass(frozen=True, slots=True)
class Columns:
    """The file's column for each of `NAMES`, by its name in the header, or all of them by number from 1, without one.

    Attributes:
        liked: the lowest value of the label's column that counts as liked; None where it holds 0 and 1.
    """

    named: dict[str, str]
    liked: float | None = None

    @staticmethod
    def parse(text: str) -> "Columns":
        """From ``user=userId,item=movieId,time=timestamp,label=rating>=4``.

        Raises:
            ConfigurationError: a part is missing, unknown or twice, or the threshold is no number.
        """
        parts = [part.strip().partition("=") for part in text.split(",")]
        named = {name.strip(): column.strip() for name, _, column in parts}
        if len(parts) != len(NAMES) or sorted(named) != sorted(NAMES) or not all(named.values()):
            raise ConfigurationError(
                f"--columns {text!r}: a column is needed for each of {', '.join(NAMES)}, once", hint=EXAMPLE
            )
        named["label"], sign, threshold = (word.strip() for word in named["label"].partition(">="))
        try:
            liked = float(threshold) if sign else None
        except ValueError:
            raise ConfigurationError(f"--columns: label>={threshold!r} is no number", hint=EXAMPLE) from None
        return Columns(named, liked)

    @property
    def numbered(self) -> bool:
        """Whether all columns are given by number: the file has no header line."""
        return all(column.isdecimal() for column in self.named.values())

    def places(self, header: Sequence[str], path: Path) -> dict[str, int]:
        """The position of each column in a row, from 0. A type after a name (``user_id:token``) does not count.

        Raises:
            ConfigurationError: the file does not have one of them.
        """
        names = [name.strip().partition(":")[0] for name in header]
        if self.numbered:
            names = [str(number) for number in range(1, len(header) + 1)]
        for name, column in self.named.items():
            if column not in names:
                raise ConfigurationError(
                    f"{path} has no column {column!r} for {name}; it has {_listed(names)}",
                    hint=EXAMPLE if _is_text(names) else "it is no text: unpack it, or write it as UTF-8, first",
                )
        return {name: names.index(column) for name, column in self.named.items()}

    def label_of(self, text: str) -> float | None:
        """1 for liked, 0 for not; None for what is neither."""
        try:
            value = float(text)
        except ValueError:
            return None
        if self.liked is not None:
            return float(value >= self.liked) if isfinite(value) else None
        return value if value in (0.0, 1.0) else None


def _listed(names: Sequence[str]) -> str:
    """Names for a message: whatever stands in a file, it neither fills nor confuses a terminal."""
    shown = ["".join(sign if sign.isprintable() else "?" for sign in name)[:LONGEST] for name in names[:LISTED]]
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*shown, *more]) or "none: it is empty, or begins with an empty line"


def _is_text(names: Sequence[str]) -> bool:
    return all(name.isprintable() and "\N{REPLACEMENT CHARACTER}" not in name for name in names)
