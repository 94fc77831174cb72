"""Every mistake that a caller of `pid` can make, one class each.

PidError
├── InvalidTable         a table that is no distribution p(x1, x2, y), or counts that are none
├── InvalidPosteriors    rows of posteriors, confidences, weights or groups that cannot be used together
├── InvalidCovariance    a matrix that is no covariance of (x1, x2, y), or sizes that do not fit it
├── InvalidSetting       a gate, level, number of points or of replicates outside its range
├── UnknownMeasure       no measure of that name
├── TooFewSamples        an interval or a test was asked of fewer samples than it needs
└── SolverStalled        an optimum could not be enclosed as closely as promised

A message says what was wrong with the value, what is allowed, and what to do.
"""

from __future__ import annotations


class PidError(Exception):
    """Base of every error raised by `pid`."""


class InvalidTable(PidError):
    """A table is no distribution p(x1, x2, y), or counts are none."""


class InvalidPosteriors(PidError):
    """Rows of posteriors, confidences, weights or groups cannot be used together."""


class InvalidCovariance(PidError):
    """A matrix is no covariance of (x1, x2, y), or the sizes do not fit it."""


class InvalidSetting(PidError):
    """A gate, level, number of points or of replicates is outside its range."""


class UnknownMeasure(PidError):
    """No measure of that name is known."""


class TooFewSamples(PidError):
    """An interval or a test was asked of fewer samples than it needs."""


class SolverStalled(PidError):
    """An optimum could not be enclosed as closely as promised; no value is given instead."""
