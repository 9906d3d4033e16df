"""Feature keys are documented, stable and the same everywhere."""

import numpy as np

from ekko.ops.demo.features import BIAS, encode_features, feature_key


def test_keys_are_stable():
    # Computed once with coreutils: printf 'occupation=writer' | b2sum -l 64, read little-endian.
    assert feature_key("occupation", "writer") == int.from_bytes(bytes.fromhex("9115d3562da4fb24"), "little")


def test_field_and_value_both_count():
    keys = {feature_key("user", "1"), feature_key("item", "1"), feature_key("user", "2"), feature_key(*BIAS)}
    assert len(keys) == 4


def test_entities_are_padded_with_features_that_add_nothing():
    keys, values = encode_features([[("item", "1"), ("genre", "War"), ("genre", "Drama")], [("item", "2")]])
    assert keys.dtype == np.uint64
    assert keys.tolist() == [
        [feature_key("item", "1"), feature_key("genre", "War"), feature_key("genre", "Drama")],
        [feature_key("item", "2"), feature_key(*BIAS), feature_key(*BIAS)],
    ]
    half = np.float32(0.5**0.5)
    assert values.tolist() == [[1, half, half], [1, 0, 0]]
