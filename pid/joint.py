"""The validated table p(x1, x2, y), and what Shannon says about it: entropies and mutual information in bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pid.errors import InvalidTable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]

NORMALISATION_TOLERANCE = 1e-6
"""How far a table may sum from 1 before it is refused; within it, it is renormalised."""


def xlogx(p: Array) -> Array:
    """Values of p log2 p elementwise in bits, 0 where p is 0."""
    return np.asarray(p * np.log2(np.where(p > 0, p, 1.0)))


def entropy(p: Array, axes: int = 1) -> Array:
    """Shannon entropy in bits over the last `axes` axes; of a measure that sums to t it is −Σ p log2 p."""
    return np.asarray(-xlogx(p).reshape(*p.shape[: p.ndim - axes], -1).sum(-1))


def mutual_information(pairs: Array) -> Array:
    """I(X;Y) in bits of pair tables [..., symbols, labels] that sum to 1; never below 0.

    Σ p(x,y) log2 [p(x,y) / (p(x) p(y))] (Cover & Thomas, Elements of Information Theory, eq. 2.28), as a sum of terms
    p(x,y) log2 (1/ratio) − p(x,y) + p(x)p(y), each at least 0, so that no digits cancel where the two are independent.
    """
    outer = pairs.sum(-1, keepdims=True) * pairs.sum(-2, keepdims=True)
    positive = pairs > 0
    ratio = np.divide(outer, pairs, out=np.ones_like(pairs), where=positive)
    # A product of two marginals may underflow to 0 beside a cell that does not; it then adds nothing that counts.
    terms = np.where(positive, -pairs * np.log(np.where(ratio > 0, ratio, 1.0)) - pairs, 0.0) + outer
    return np.asarray(np.maximum(terms.reshape(*pairs.shape[:-2], -1).sum(-1), 0.0) / np.log(2))


@dataclass(frozen=True, eq=False)
class Joint:
    """A distribution of two sources and a target: `table [first, second, labels]`, non-negative, summing to 1.

    Build it with `Joint.read`, which says what is wrong with a table that is none.
    """

    table: Array

    @classmethod
    def read(cls, table: ArrayLike) -> Joint:
        """The distribution in a table of floats, renormalised where rounding left it within 1e-6 of 1.

        Raises:
            InvalidTable: no three axes, empty, not finite, negative, or not summing to 1 within 1e-6.
        """
        values = numbers(table, "the table")
        if values.ndim != 3:
            raise InvalidTable(
                f"the table has {values.ndim} axes of shape {values.shape}; p(x1, x2, y) has three: "
                "first source, second source, label"
            )
        total = float(values.sum())
        if abs(total - 1) > NORMALISATION_TOLERANCE:
            raise InvalidTable(
                f"the table sums to {total:.9g}; probabilities sum to 1 within {NORMALISATION_TOLERANCE:g}: "
                "divide counts by their sum"
            )
        return cls(values / total)

    @cached_property
    def first(self) -> Array:
        """p(x1, y) [first, labels]."""
        return np.asarray(self.table.sum(1))

    @cached_property
    def second(self) -> Array:
        """p(x2, y) [second, labels]."""
        return np.asarray(self.table.sum(0))

    @cached_property
    def labels(self) -> Array:
        """p(y) [labels]."""
        return np.asarray(self.table.sum((0, 1)))

    @cached_property
    def information_1(self) -> float:
        """I(X1;Y) in bits."""
        return float(mutual_information(self.first))

    @cached_property
    def information_2(self) -> float:
        """I(X2;Y) in bits."""
        return float(mutual_information(self.second))

    @cached_property
    def information_12(self) -> float:
        """I(X1,X2;Y) in bits."""
        return float(mutual_information(self.table.reshape(-1, self.table.shape[2])))


def numbers(values: Any, what: str) -> Array:
    """Finite numbers of at least 0 as float64, whatever they came as.

    Raises:
        InvalidTable: not numbers, empty, NaN, infinite or negative.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTable(f"{what} does not hold numbers only ({error}); pass an array of floats") from error
    if array.size == 0:
        raise InvalidTable(f"{what} is empty, of shape {array.shape}; at least one cell of each axis is needed")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidTable(f"{what} holds {array[place]} at {place}; all cells must be finite: leave such samples out")
    if array.min() < 0:
        place = tuple(int(i) for i in np.unravel_index(array.argmin(), array.shape))
        raise InvalidTable(
            f"{what} holds {array[place]:.9g} at {place}; cells must be at least 0: look where it is made"
        )
    return array
