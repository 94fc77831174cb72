"""Sizes on the ground and names of reference systems, for people."""

from __future__ import annotations

import re

import numpy as np

from analysis.errors import ImageError
from analysis.imagery import ImageInfo, pixel_to_lonlat
from analysis.run import ImageRef

EARTH_METRES = 6_371_008.8
"""Mean radius of the Earth (IUGG)."""


def metres_per_pixel(image: ImageRef) -> float | None:
    """Ground size of a pixel in the middle of the image, from its own georeference; None where it has none."""
    if image.crs is None or image.transform is None:
        return None
    info = ImageInfo(
        name=image.name,
        sha256=image.digest,
        file_bytes=0,
        format="TIFF",
        width=image.width,
        height=image.height,
        bands=3,
        dtype="uint8",
        bits=8,
        colours=(),
        crs=image.crs,
        transform=image.transform,
        is_mappable=True,
    )
    middle = (image.width / 2, image.height / 2)
    try:
        (lon, lat), (east, north) = np.radians(pixel_to_lonlat(info, [middle, (middle[0] + 1, middle[1])]))
    except ImageError:
        return None
    half = np.sin((north - lat) / 2) ** 2 + np.cos(lat) * np.cos(north) * np.sin((east - lon) / 2) ** 2
    metres = float(2 * EARTH_METRES * np.arcsin(np.sqrt(half)))
    return metres if np.isfinite(metres) and metres > 0 else None


def length(metres: float) -> str:
    """A length with two significant digits: "0.6 m", "30 m", "1.2 km".

    >>> length(0.5998), length(29.9), length(1234.0)
    ('0.6 m', '30 m', '1.2 km')
    """
    if metres >= 1000:
        return f"{float(f'{metres / 1000:.2g}'):,g} km"
    return f"{float(f'{metres:.2g}'):g} m"


def crs_name(crs: str | None) -> str:
    """A reference system as people write it: "EPSG:32632", or the name inside a WKT."""
    if crs is None:
        return ""
    if len(crs) <= 24:
        return crs
    named = re.search(r'"([^"]{1,80})"', crs)
    return named.group(1) if named else "own reference system"


def image_words(image: ImageRef) -> list[str]:
    """The facts of an image that stand under a title, one after the other."""
    metres = metres_per_pixel(image)
    size = f"{image.width:,} × {image.height:,} px" + (f", {length(metres)}" if metres else "")
    place = crs_name(image.crs) or "plain pixels"
    words = [image.name, size, place + (", declared synthetic" if image.is_synthetic else "")]
    if image.rendering and "as they are" not in image.rendering:
        words.append(image.rendering)
    return words
