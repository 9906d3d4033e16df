"""A seeded stand-in for real data when none can be fetched: a recommender's stream whose ground truth drifts.

Users arrive over the whole time and stay for a while; items rise and fall in popularity and appeal; tastes wander.
Labels are drawn from a latent-factor model: ``P(liked) = logistic(mood_u + appeal_i(t) + taste_u(t) . traits_i)``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.features import Feature, encode_features
from ekko.ops.demo.interactions import Interactions, join_features

OCCUPATIONS = 12
GENRES = 12
TRAITS = 6
FIRST_SECOND = 1_000_000_000
SECONDS = 20_000_000

Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SyntheticShape:
    """Sizes of the stream; the defaults are those of MovieLens 100K. ``periods`` steps of drift span it."""

    interactions: int = 100_000
    users: int = 943
    items: int = 1_682
    periods: int = 40


def synthetic_interactions(seed: int, shape: SyntheticShape | None = None) -> Interactions:
    """A stream of ``shape``; the same seed gives the same stream."""
    shape = shape or SyntheticShape()
    rng = np.random.default_rng(seed)
    occupations = rng.integers(OCCUPATIONS, size=shape.users)
    genres = rng.integers(GENRES, size=(shape.items, 2))
    times, users = _visits(rng, shape)
    periods = np.minimum((times * shape.periods).astype(np.intp), shape.periods - 1)
    items = _choices(rng, shape, periods)
    odds = _odds(rng, shape, (occupations, genres), (periods, users, items))
    labels = rng.random(shape.interactions) < 1 / (1 + np.exp(-odds))
    users_encoded = encode_features([_user_features(*user) for user in enumerate(occupations.tolist())])
    items_encoded = encode_features([_item_features(*item) for item in enumerate(genres.tolist())])
    keys, values = join_features(users_encoded, items_encoded, users, items)
    return Interactions(
        f"synthetic stream with drift (seed {seed})",
        "No real data: made up by a random generator.",
        FIRST_SECOND + (times * SECONDS).astype(np.int64),
        labels.astype(np.float32),
        keys,
        values,
        1 + users_encoded[0].shape[1],
    )


def _visits(rng: np.random.Generator, shape: SyntheticShape) -> tuple[Floats, Indexes]:
    """Times in [0, 1), sorted, and who came: a user's visits spread about one moment, few users come very often."""
    activity = rng.pareto(2.0, shape.users) + 0.2
    users = rng.choice(shape.users, size=shape.interactions, p=activity / activity.sum())
    arrivals, stays = rng.random(shape.users), rng.exponential(0.02, shape.users)
    times = (arrivals[users] + stays[users] * rng.random(shape.interactions)) % 1.0
    order = np.argsort(times, kind="stable")
    return times[order], users[order]


def _choices(rng: np.random.Generator, shape: SyntheticShape, periods: Indexes) -> Indexes:
    """Items chosen by a Zipf-like popularity of which a part drifts from period to period."""
    lasting = -np.log(rng.permutation(shape.items) + 1.0)
    drift = _wander(rng, shape, (shape.items,), 0.3)
    items = np.empty(len(periods), np.intp)
    for period in range(shape.periods):
        chosen = periods == period
        weights = np.exp(0.7 * lasting + drift[period])
        items[chosen] = rng.choice(shape.items, size=np.count_nonzero(chosen), p=weights / weights.sum())
    return items


def _odds(
    rng: np.random.Generator,
    shape: SyntheticShape,
    groups: tuple[Indexes, Indexes],
    visits: tuple[Indexes, Indexes, Indexes],
) -> Floats:
    """Log-odds that each visit ends in a like; occupation and genres tell a part of tastes and traits."""
    occupations, genres = groups
    periods, users, items = visits
    typical_taste = rng.standard_normal((OCCUPATIONS, TRAITS)) * 0.5
    typical_traits = rng.standard_normal((GENRES, TRAITS)) * 0.5
    tastes = typical_taste[occupations] + rng.standard_normal((shape.users, TRAITS)) * 0.5
    traits = typical_traits[genres].sum(axis=1) + rng.standard_normal((shape.items, TRAITS)) * 0.4
    moods, appeals = rng.standard_normal(shape.users) * 0.7, rng.standard_normal(shape.items) * 0.6
    taste_drift = _wander(rng, shape, (shape.users, TRAITS), 0.15)
    appeal_drift = _wander(rng, shape, (shape.items,), 0.2)
    agreement = ((tastes[users] + taste_drift[periods, users]) * traits[items]).sum(axis=1)
    return np.asarray(0.3 + moods[users] + appeals[items] + appeal_drift[periods, items] + agreement, np.float64)


def _wander(rng: np.random.Generator, shape: SyntheticShape, size: tuple[int, ...], step: float) -> Floats:
    """Random walks ``float64[periods, *size]`` that start at 0."""
    return np.asarray(np.cumsum(rng.standard_normal((shape.periods, *size)) * step, axis=0), np.float64)


def _user_features(user: int, occupation: int) -> list[Feature]:
    return [("user", str(user)), ("occupation", str(occupation))]


def _item_features(item: int, genres: list[int]) -> list[Feature]:
    return [("item", str(item)), *(("genre", str(genre)) for genre in sorted(set(genres)))]
