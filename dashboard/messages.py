"""Every sentence of ours about something that went wrong: one calm sentence per class of error, and nothing unescaped.

The errors of the packages already say what was wrong, what is allowed and what to do; here they get a heading and a
capital letter. What is not one of ours shows a reference; the rest is in the log.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from analysis import errors as analysis
from compression import errors as compression
from dashboard import errors as dashboard
from storage import errors as storage

log = logging.getLogger("keepmap")

IMAGES = "PNG, JPEG, WebP, TIFF, GeoTIFF, COG"

_TITLES: tuple[tuple[type[Exception], str], ...] = (
    (analysis.MissingImage, "The image is not there any more."),
    (analysis.NotAnImage, "This is not an image that can be opened."),
    (analysis.UnsupportedImage, "This kind of image cannot be shown."),
    (analysis.TruncatedImage, "The file ends too early."),
    (analysis.DamagedImage, "The file is damaged."),
    (analysis.ImageTooLarge, "The image is too large."),
    (analysis.ImageError, "The image cannot be used."),
    (compression.InvalidGrid, "The model cannot read this image."),
    (compression.InvalidBudget, "This budget cannot be reached."),
    (compression.UnknownStrategy, "There is no such strategy."),
    (compression.InvalidParameter, "A parameter has a value that the strategy does not take."),
    (compression.InvalidStrategyText, "This does not read as a strategy."),
    (compression.MissingSignal, "The model cannot be asked with this strategy."),
    (compression.UnknownModel, "There is no such model."),
    (compression.ModelUnavailable, "The model is not available here."),
    (compression.DeviceUnavailable, "There is no such device here."),
    (compression.AttentionUnavailable, "The model gave no attention."),
    (compression.InvalidQuestion, "The model cannot read this question."),
    (compression.Cancelled, "Cancelled."),
    (storage.StoreReadOnly, "The store can be read only."),
    (storage.StoreFull, "The disk is full."),
    (storage.StoreLocked, "The store is busy."),
    (storage.StoreUnavailable, "The store cannot be used."),
    (storage.QuotaExceeded, "There is no room for more images."),
    (storage.AssetMissing, "The image is not kept here any more."),
    (storage.RunNotFound, "There is no such run."),
    (storage.InvalidCondition, "The condition is not one over the columns of v_runs."),
    (storage.SpectrumNotFound, "There is no such decomposition."),
    (storage.ComparisonNotFound, "There is no such comparison."),
    (storage.NotFound, "There is no such entry."),
    (dashboard.QueueFull, "Too much is waiting."),
    (dashboard.TooManyJobs, "Your earlier comparisons are still running."),
    (dashboard.NotComparable, "These runs cannot be shown side by side."),
    (dashboard.InvalidInquiry, "Something is missing."),
)
_OURS = (analysis.AnalysisError, compression.CompressionError, dashboard.DashboardError, storage.StorageError)


@dataclass(frozen=True)
class Message:
    """What a visitor reads: a heading, a sentence, and where the rest is when the cause is unknown.

    Args:
        title: Ends with a full stop.
        text: What was wrong, what is allowed, what to do.
        reference: Set where the cause is unknown: the same word stands in the log.
    """

    title: str
    text: str
    reference: str = ""

    def __str__(self) -> str:
        return f"{self.title} {self.text}".strip()


def explain(error: BaseException) -> Message:
    """The message for an error. Unknown ones are logged under a reference and say nothing of their inside."""
    for kind, title in _TITLES:
        if isinstance(error, kind):
            return Message(title, sentence(str(error)))
    if isinstance(error, _OURS):
        return Message("That did not work.", sentence(str(error)))
    reference = secrets.token_hex(4)
    log.error("unexpected error, reference %s", reference, exc_info=error)
    return Message(
        "Something went wrong on our side.",
        f"It is in the server's log under the reference {reference}. What was shown before is still here; trying "
        f"again may help.",
        reference,
    )


def explain_upload(error: BaseException, name: str) -> Message:
    """The message for a file that cannot be used: the file, what was wrong with it, and what is allowed."""
    message = explain(error)
    if message.reference or not isinstance(error, analysis.ImageError):
        return message
    text = message.text
    if text.lower().startswith(f"{name.lower()} "):  # the heading has the name already
        text = "It" + text[len(name) :]
    title = (
        f"{name} is not an image that can be opened."
        if not isinstance(error, analysis.ImageTooLarge)
        else f"{name} is too large."
    )
    return Message(title, f"{text} Allowed: {IMAGES}.")


def sentence(text: str) -> str:
    """An error's text as a sentence: a capital letter, a full stop.

    >>> sentence("budget must be 1..64, got 0")
    'Budget must be 1..64, got 0.'
    """
    text = text.strip()
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
