"""Opening a raster with GDAL so that it reads that one file and nothing else.

Every dataset is opened and closed within one call, in a GDAL environment of the calling thread, so tiles may be read
from many threads at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rasterio._err import CPLE_BaseError
from rasterio.env import Env
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.session import DummySession

from analysis.errors import DamagedImage
from analysis.imagery.limits import BLOCK_CACHE_BYTES

#: What GDAL and its bindings raise; they share no base.
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError)

_OPTIONS = {
    # No listing of the folder: no .ovr, .msk, .aux.xml, .tfw or .RPB beside the file is looked for.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": BLOCK_CACHE_BYTES,
    "GTIFF_IMPLICIT_JPEG_OVR": False,
    "GTIFF_REPORT_COMPD_CS": True,
}


class _PlainPixels:
    """Without a place on Earth the transform is the identity, silently.

    rasterio warns instead, and Python's warning filters cannot be changed for one thread alone.
    """

    def read_transform(self) -> list[float]:
        try:
            return list(super().read_transform())  # type: ignore[misc]
        except NotGeoreferencedWarning:
            return [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


class _Pixels:
    """A reader of pixels alone asks for no transform, so that there is nothing to warn about."""

    def read_transform(self) -> list[float]:
        return [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


class _GeoReader(_PlainPixels, DatasetReader): ...  # type: ignore[misc]  # rasterio has no types


class _PixelReader(_Pixels, DatasetReader): ...  # type: ignore[misc]


class _GeoWriter(_PlainPixels, DatasetWriter): ...  # type: ignore[misc]


class _PixelWriter(_Pixels, DatasetWriter): ...  # type: ignore[misc]


@contextmanager
def environment() -> Iterator[None]:
    """Set GDAL's options for the calling thread: one file, no network, no cloud credentials, a bounded cache."""
    with Env(session=DummySession(), **_OPTIONS):
        yield


@contextmanager
def open_raster(
    path: Path,
    name: str,
    *,
    driver: Literal["GTiff", "PNG"] = "GTiff",
    overview: int | None = None,
    with_place: bool = False,
) -> Iterator[DatasetReader]:
    """Open a raster for reading, or one of its overviews by index; messages call it `name`.

    Raises:
        DamagedImage: GDAL cannot open it, or a read inside the block fails.
    """
    reader = _GeoReader if with_place else _PixelReader
    level = {} if overview is None else {"overview_level": overview}
    try:
        # An absolute Path, never a str: text would be searched for URL schemes and GDAL prefixes.
        with environment(), reader(path.absolute(), driver=driver, **level) as dataset:
            yield dataset
    except GDAL_ERRORS as error:
        raise DamagedImage(
            f"the pixels of {name} cannot be decoded ({reason(error, path, name)}); "
            "copy the file again or export it anew"
        ) from error


@contextmanager
def create_raster(path: Path, *, with_place: bool, **profile: Any) -> Iterator[DatasetWriter]:
    """Create a GeoTIFF at `path` and open it for writing."""
    writer = _GeoWriter if with_place else _PixelWriter
    with environment(), writer(path.absolute(), "w", driver="GTiff", **profile) as dataset:
        yield dataset


@contextmanager
def update_raster(path: Path, *, with_place: bool) -> Iterator[DatasetWriter]:
    """Open an existing GeoTIFF to add to it."""
    writer = _GeoWriter if with_place else _PixelWriter
    with environment(), writer(path.absolute(), "r+", driver="GTiff") as dataset:
        yield dataset


def reason(error: BaseException, path: Path, name: str) -> str:
    """Return GDAL's own words, or the operating system's, with `name` in the place of the path."""
    root = error.__cause__ or error
    words = getattr(root, "strerror", None) or str(root)
    return str(words).replace(str(path.absolute()), name).strip().rstrip(".") or type(root).__name__
