"""What a model said in three passes over the same samples: rows on the simplex, validated together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pid.errors import InvalidPosteriors, InvalidSetting
from pid.joint import Array, Indices, Mask

ROW_TOLERANCE = 1e-5
"""How far a row may sum from 1, as float32 leaves it; within it, it is renormalised."""
PASSES = ("p1", "p2", "p12")


@dataclass(frozen=True)
class ByPass:
    """One number for each pass: first source only, second source only, both."""

    p1: float
    p2: float
    p12: float


@dataclass(frozen=True, eq=False)
class Posteriors:
    """p(y|x1), p(y|x2) and p(y|x1,x2) of the same samples. Build it with `Posteriors.read` or `Posteriors.of_pairs`."""

    rows: Array
    """[3, samples, options], in the order p1, p2, p12; 0 at options that were not offered."""
    offered: Mask
    """[samples, options]"""
    weights: Array
    """[samples], summing to 1."""
    groups: Indices
    """What is drawn as one by the bootstrap, numbered from 0: [samples, 1], or [samples, 2] for crossed groups."""
    confidences: Array | None = None
    """[3, samples]: the probability that the options had together, before they were renormalised."""

    @classmethod
    def read(
        cls,
        p1: ArrayLike,
        p2: ArrayLike,
        p12: ArrayLike,
        *,
        confidences: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        options: ArrayLike | None = None,
    ) -> Posteriors:
        """Check and renormalise rows [samples, options].

        Args:
            p1: p(y|x1); NaN where a sample has no such option.
            p2: p(y|x2).
            p12: p(y|x1,x2).
            confidences: [3, samples], probability that each pass put on the options, 0..1.
            weights: [samples], at least 0, not all 0; equal if not given.
            groups: [samples] labels of what is drawn as one (the image, where questions share one), or [samples, 2] for
                two crossed labels.
            options: [samples] number of options of each sample, where rows are padded with zeros instead of NaN.

        Raises:
            InvalidPosteriors: arrays that contradict each other, or rows that are no distributions.
        """
        rows = np.stack(_same_shape([_array(one, name) for one, name in zip((p1, p2, p12), PASSES, strict=True)]))
        offered = _offered(rows, options)
        rows = np.where(offered, rows, 0.0)
        _check_rows(rows)
        count = rows.shape[1]
        rows = rows / rows.sum(2, keepdims=True)
        return cls(rows, offered, _weights(weights, count), _groups(groups, count), _confidences(confidences, count))

    @classmethod
    def of_pairs(cls, p12: ArrayLike, first: ArrayLike, second: ArrayLike) -> Posteriors:
        """The coherent case: every row of p12 is one pair of source symbols, and p1, p2 are its averages.

        For the intervention `shuffled`, where a picture is asked with the questions of its partners: `first [pairs]`
        numbers the pictures, `second [pairs]` the questions. The three tables are then marginals of one joint, and
        nothing needs calibration. Pictures and questions are drawn as crossed groups.

        Raises:
            InvalidPosteriors: rows that are no distributions, or numbers that do not fit them.
        """
        rows = _array(p12, "p12")
        places = [_numbered(one, len(rows), name) for one, name in ((first, "first"), (second, "second"))]
        averages = []
        for place in places:
            sums = np.zeros((place.max() + 1, rows.shape[1]))
            np.add.at(sums, place, rows)
            averages.append((sums / np.bincount(place)[:, None])[place])
        return cls.read(averages[0], averages[1], rows, groups=np.stack(places, axis=1))

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    def gated(self, gate: float) -> tuple[Posteriors, ByPass]:
        """Rows whose confidence is below `gate` made uniform on the options offered, and the fraction of such rows.

        Raises:
            InvalidSetting: a gate outside 0..1.
        """
        if not 0 <= gate <= 1:
            raise InvalidSetting(f"the gate is {gate:g}; it is a probability from 0 (off) to 1: 0.3 is usual")
        if self.confidences is None:
            return self, ByPass(0.0, 0.0, 0.0)
        low = self.confidences < gate
        uniform = self.offered / self.offered.sum(1, keepdims=True)
        rows = np.where(low[..., None], uniform, self.rows)
        fractions = (min(1.0, float((self.weights * one).sum())) for one in low)
        return Posteriors(rows, self.offered, self.weights, self.groups, self.confidences), ByPass(*fractions)

    def by_option_count(self) -> Iterator[tuple[int, Indices, Array]]:
        """Number of options, places of the samples that have as many, and their rows [3, samples, options]."""
        counts = self.offered.sum(1)
        for count in np.unique(counts):
            places = np.flatnonzero(counts == count)
            kept = self.rows[:, places][:, self.offered[places]].reshape(3, len(places), int(count))
            yield int(count), places, kept


def _array(values: Any, name: str) -> Array:
    array = _floats(values, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidPosteriors(f"{name} has the shape {array.shape}; it must be [samples, options], with one of each")
    return array


def _floats(values: Any, name: str) -> Array:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidPosteriors(f"{name} does not hold numbers only ({error}); pass an array of floats") from error


def _same_shape(arrays: list[Array]) -> list[Array]:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise InvalidPosteriors(
            f"p1, p2 and p12 have the shapes {', '.join(str(array.shape) for array in arrays)}; they must be the same: "
            "one row per sample in each; pad samples with fewer options with NaN"
        )
    return arrays


def _offered(rows: Array, options: ArrayLike | None) -> Mask:
    missing = np.isnan(rows)
    if (missing[0] != missing[1]).any() or (missing[0] != missing[2]).any():
        row = int(np.argwhere((missing != missing[0]).any((0, 2)))[0, 0])
        raise InvalidPosteriors(
            f"row {row} is NaN at different options in p1, p2 and p12; NaN marks an option that the sample does not "
            "have, the same in all three: leave out samples whose pass failed"
        )
    offered = ~missing[0]
    if options is not None:
        counts = np.array(options)
        if counts.shape != (rows.shape[1],) or counts.min() < 1 or counts.max() > rows.shape[2]:
            raise InvalidPosteriors(
                f"options has the shape {counts.shape}; it must give each of the {rows.shape[1]} samples its number of "
                f"options, 1..{rows.shape[2]}"
            )
        offered &= np.arange(rows.shape[2]) < counts[:, None]
        outside = np.where(offered, 0.0, np.nan_to_num(rows)).max((0, 2))
        if outside.max() > ROW_TOLERANCE:
            row = int(outside.argmax())
            raise InvalidPosteriors(
                f"row {row} puts {outside[row]:.3g} on an option beyond its {counts[row]}; padding must be 0 or NaN"
            )
    if not offered.any(1).all():
        raise InvalidPosteriors(
            f"row {int(np.flatnonzero(~offered.any(1))[0])} is NaN at every option; leave out samples without an answer"
        )
    return np.asarray(offered)


def _check_rows(rows: Array) -> None:
    for name, one in zip(PASSES, rows, strict=True):
        if not np.isfinite(one).all() or one.min() < 0:
            bad = ~np.isfinite(one) | (one < 0)
            row, option = (int(i) for i in np.argwhere(bad)[0])
            raise InvalidPosteriors(
                f"{name} holds {one[row, option]:.9g} in row {row}, option {option}; probabilities are from 0 to 1: "
                "pass probabilities, not logits"
            )
        sums = one.sum(1)
        off = np.abs(sums - 1)
        if off.max() > ROW_TOLERANCE:
            row = int(off.argmax())
            raise InvalidPosteriors(
                f"{name} sums to {sums[row]:.9g} in row {row}; each row must sum to 1 within {ROW_TOLERANCE:g}: "
                "divide by the sum over the options, and pass that sum as the confidence"
            )


def _weights(weights: ArrayLike | None, count: int) -> Array:
    if weights is None:
        return np.full(count, 1 / count)
    values = _floats(weights, "weights")
    if values.shape != (count,):
        raise InvalidPosteriors(
            f"weights has the shape {values.shape}; it must hold one weight for each of {count} rows"
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        raise InvalidPosteriors(
            f"weights go from {values.min():.9g} to {values.max():.9g}; they must be finite, at least 0 and not all 0"
        )
    return np.asarray(values / values.sum())


def _groups(groups: ArrayLike | None, count: int) -> Indices:
    if groups is None:
        return np.arange(count, dtype=np.intp)[:, None]
    labels = np.array(groups)
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != count or labels.shape[1] not in (1, 2):
        raise InvalidPosteriors(
            f"groups has the shape {np.shape(groups)}; it must hold one label for each of {count} rows, or two of "
            "crossed groups"
        )
    columns = [np.unique(column, return_inverse=True)[1] for column in labels.T]
    return np.stack(columns, axis=1).astype(np.intp)


def _confidences(confidences: ArrayLike | None, count: int) -> Array | None:
    if confidences is None:
        return None
    values = _floats(confidences, "confidences")
    if values.shape != (3, count):
        raise InvalidPosteriors(
            f"confidences has the shape {values.shape}; it must be [3, {count}]: one row for each of p1, p2, p12"
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1 + ROW_TOLERANCE:
        raise InvalidPosteriors(
            f"confidences go from {values.min():.9g} to {values.max():.9g}; they are probabilities from 0 to 1"
        )
    return values


def _numbered(values: ArrayLike, count: int, name: str) -> Indices:
    labels = np.array(values)
    if labels.shape != (count,):
        raise InvalidPosteriors(
            f"{name} has the shape {labels.shape}; it must number the source symbol of {count} rows"
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)
