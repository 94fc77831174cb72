"""Every mistake that the analysis package can name, as one tree.

    AnalysisError
    ├── NothingRecorded           a recording was asked for and no layer was heard
    ├── InvalidAnnotation         a questions.jsonl that cannot be read
    ├── InvalidInformation        passes or samples from which no information can be estimated
    └── ImageError
        ├── MissingImage          no readable file at the path
        ├── NotAnImage            the bytes are none of the allowed formats
        ├── UnsupportedImage      an allowed format, but a kind of it that cannot be shown
        ├── TruncatedImage        the file ends before its pixels do
        ├── DamagedImage          the file contradicts itself or its pixels do not decode
        ├── ImageTooLarge         more bytes, pixels or bands than the limits allow
        ├── InvalidWindow         a window, size or tile that the image does not have
        ├── InvalidRendering      bands or value ranges that the image does not have
        ├── NotGeoreferenced      a place on Earth was asked of plain pixels
        └── ImageNotWritten       an output file could not be completed

A message says what was wrong with the value, what is allowed, and what to do. It names a file by its last
component only, so that no server path reaches a visitor.
"""


class AnalysisError(Exception):
    """Anything that this package refuses or fails to do, for a reason that it can state."""


class NothingRecorded(AnalysisError):
    """A recording was asked for and no layer was heard."""


class InvalidAnnotation(AnalysisError):
    """A questions.jsonl cannot be read."""


class InvalidInformation(AnalysisError):
    """Passes or samples from which no information can be estimated."""


class ImageError(AnalysisError):
    """An image file cannot be used as asked."""


class MissingImage(ImageError):
    """There is no readable local file at the path."""


class NotAnImage(ImageError):
    """The content is not PNG, JPEG, WebP or TIFF, whatever the name says."""


class UnsupportedImage(ImageError):
    """The format is allowed, but this kind of it cannot be shown."""


class TruncatedImage(ImageError):
    """The file ends before the pixels that its header promises."""


class DamagedImage(ImageError):
    """The file contradicts itself, or its pixels cannot be decoded."""


class ImageTooLarge(ImageError):
    """The image, or the part of it asked for, is above a stated limit."""


class InvalidWindow(ImageError):
    """A window or size lies outside the image or is not a positive area."""


class InvalidRendering(ImageError):
    """A rendering names bands or value ranges that the image does not have."""


class NotGeoreferenced(ImageError):
    """A place on Earth was asked of an image that does not state one."""


class ImageNotWritten(ImageError):
    """An image file could not be written completely, so nothing was left behind."""
