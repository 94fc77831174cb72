"""Clouds of fewer points: posteriors that resemble each other are merged, and the information lost is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pid.joint import Array, Indices, mutual_information

DIGITS = 13
"""Decimals to which two posteriors must agree to count as the same."""
SWEEPS = 60


@dataclass(frozen=True, eq=False)
class Cloud:
    """Posteriors merged to points."""

    pairs: Array
    """p(point, y) [points, options], summing to 1."""
    place: Indices
    """Point of each sample [samples]."""
    information: float
    """I(X;Y) in bits before merging."""
    loss: float
    """ℓ = I(X;Y) − I(point;Y) in bits, at least 0."""


def quantise(rows: Array, weights: Array, max_points: int, seed: int = 0) -> Cloud:
    """Merge posteriors [samples, options] of the given weights (summing to 1) into at most `max_points` points.

    Equal posteriors are one point, which loses nothing. If more are left, Lloyd's algorithm with the divergence
    KL(posterior ‖ point) lowers the loss itself, Σ w KL(posterior ‖ point) = I(X;Y) − I(point;Y), from a start spread
    out over square-root posteriors (k-means++, Arthur & Vassilvitskii 2007). A point is its members' average.
    """
    information = float(mutual_information(rows * weights[:, None]))
    points, place = np.unique(np.round(rows, DIGITS), axis=0, return_inverse=True)
    place = place.reshape(-1).astype(np.intp)
    if len(points) > max_points:
        mass = np.bincount(place, weights, len(points)).astype(np.float64)
        place = _lloyd(points, mass, max_points, seed)[place]
    pairs = merged(rows * weights[:, None], place)
    return Cloud(pairs, place, information, max(0.0, information - float(mutual_information(pairs))))


def merged(pairs: Array, place: Indices) -> Array:
    """Sums of the pair rows [samples, options] that share a point [points, options]."""
    columns = [np.bincount(place, column, place.max() + 1) for column in pairs.T]
    return np.stack(columns, axis=1)


def _lloyd(points: Array, mass: Array, count: int, seed: int) -> Indices:
    """Place of each point among at most `count` centres; numbered without gaps."""
    live = mass > 0
    centres = _spread_out(points, mass, count, seed)
    place = np.zeros(len(points), dtype=np.intp)
    for sweep in range(SWEEPS):
        # KL(p ‖ c) differs from −Σ p ln c by what depends on p only.
        nearest = np.argmin(-points @ np.log(np.maximum(centres, 1e-300)).T, axis=1)
        if sweep and (nearest == place).all():
            break
        place = nearest
        sums = np.stack([np.bincount(place, mass * column, len(centres)) for column in points.T], axis=1)
        total = sums.sum(1, keepdims=True)
        centres = np.where(total > 0, sums / np.where(total > 0, total, 1.0), centres)
    place[~live] = place[live][0]
    return np.unique(place, return_inverse=True)[1].astype(np.intp)


def _spread_out(points: Array, mass: Array, count: int, seed: int) -> Array:
    """k-means++ on square-root posteriors (Hellinger distance): centres [count, options] among the points."""
    rng = np.random.default_rng(seed)
    roots = np.sqrt(points)
    chosen = [int(rng.choice(len(points), p=mass / mass.sum()))]
    distance = ((roots - roots[chosen[0]]) ** 2).sum(1)
    for _ in range(count - 1):
        share = mass * distance
        if (total := share.sum()) <= 0:
            break
        chosen.append(
            int(np.searchsorted(np.cumsum(share) / total, rng.random(), side="right").clip(0, len(points) - 1))
        )
        distance = np.minimum(distance, ((roots - roots[chosen[-1]]) ** 2).sum(1))
    return points[chosen]
