"""Categorical features as uint64 parameter keys.

A feature is a field and a value, both text: ``("occupation", "writer")``. Its key is the 8-byte BLAKE2b digest of
``field=value`` in UTF-8, read little-endian. The key depends on nothing else: every trainer and reader on any machine
computes the same one, and a value never seen before needs no dictionary.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Feature = tuple[str, str]

BIAS: Feature = ("bias", "")


def feature_key(field: str, value: str) -> int:
    """The parameter key, in [0, 2**64), of one categorical feature."""
    return int.from_bytes(blake2b(f"{field}={value}".encode(), digest_size=8).digest(), "little")


def encode_features(entities: Sequence[Sequence[Feature]]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Keys and feature values of many entities (users, items), padded to the same width.

    Several values of one field (genres) share a norm of 1: each has the value ``1 / sqrt(count)``.

    Returns:
        ``keys uint64[N, width]`` and ``values float32[N, width]``, where ``width`` is the largest number of features of
        an entity; padding has the bias key and the value 0, so that it adds nothing to a score and no key to a lookup.
    """
    width = max(map(len, entities))
    keys = np.full((len(entities), width), feature_key(*BIAS), np.uint64)
    values = np.zeros((len(entities), width), np.float32)
    for row, features in enumerate(entities):
        fields = [field for field, _ in features]
        keys[row, : len(features)] = [feature_key(*feature) for feature in features]
        values[row, : len(features)] = [fields.count(field) ** -0.5 for field in fields]
    return keys, values
