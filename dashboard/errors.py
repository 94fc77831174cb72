"""Every mistake that a visitor or an operator of the page can make, one class each.

DashboardError
├── InvalidSetting     a flag or a KEEPMAP_ variable with a value that cannot be used
├── InvalidInquiry     what was asked is not complete, or contradicts itself
├── InvalidSweep       a sweep's file that cannot be followed, or a sweep that cannot be started so
├── QueueFull          more work is waiting than the server takes
├── TooManyJobs        one visitor has more comparisons waiting than one visitor may
├── NotComparable      stored runs that cannot be shown side by side
└── InvalidPassage     a passage of the README that is missing, broken, or cannot be written anew

A message says what was wrong with the value, what is allowed, and what to do.
"""

from __future__ import annotations


class DashboardError(Exception):
    """Base of every error raised by `dashboard`."""


class InvalidSetting(DashboardError):
    """A flag or a KEEPMAP_ variable has a value that cannot be used."""


class InvalidInquiry(DashboardError):
    """What was asked is not complete, or contradicts itself."""


class InvalidSweep(DashboardError):
    """A sweep's file cannot be followed, or the sweep cannot be started so."""


class QueueFull(DashboardError):
    """More work is waiting than the server takes."""


class TooManyJobs(DashboardError):
    """One visitor has more comparisons waiting than one visitor may."""


class NotComparable(DashboardError):
    """Stored runs that cannot be shown side by side."""


class InvalidPassage(DashboardError):
    """A passage of the README is missing, broken, or cannot be written anew."""
