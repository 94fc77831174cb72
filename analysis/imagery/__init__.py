"""The only place that touches an image file: judge it by content, describe it, read it, place it, write it.

    from analysis.imagery import describe, read_rgb

    info = describe(path)                                # refuses what cannot be shown, and says why
    data = read_rgb(path, (0, 0, 512, 512))              # rgb uint8 [512, 512, 3], mask bool [512, 512]

Data flow: `header` and `tiff` (bytes) → `describe` (facts) → `pixels` (samples, from `raster` or `photo`) →
`rendering` (colours) → `read` → `tiles`, `write`. `geometry` needs the facts only.
"""

from analysis.imagery.describe import describe
from analysis.imagery.geometry import (
    Georeference,
    bounds_lonlat,
    corners_lonlat,
    lonlat_to_pixel,
    mercator_lattice,
    pixel_to_lonlat,
)
from analysis.imagery.header import formats
from analysis.imagery.info import ImageInfo
from analysis.imagery.limits import LIMITS, Limits
from analysis.imagery.pixels import clear_caches
from analysis.imagery.read import ImageData, read_rgb
from analysis.imagery.rendering import Rendering, choose_rendering
from analysis.imagery.tiles import (
    max_mercator_zoom,
    max_zoom,
    mercator_tile,
    mercator_tile_pixels,
    pixel_tile,
    pixel_tile_pixels,
)
from analysis.imagery.write import encode_png, media_type, thumbnail, write_geotiff, write_geotiff_blocks

__all__ = [
    "LIMITS",
    "Georeference",
    "ImageData",
    "ImageInfo",
    "Limits",
    "Rendering",
    "bounds_lonlat",
    "choose_rendering",
    "clear_caches",
    "corners_lonlat",
    "describe",
    "encode_png",
    "formats",
    "lonlat_to_pixel",
    "max_mercator_zoom",
    "max_zoom",
    "media_type",
    "mercator_lattice",
    "mercator_tile",
    "mercator_tile_pixels",
    "pixel_tile",
    "pixel_tile_pixels",
    "pixel_to_lonlat",
    "read_rgb",
    "thumbnail",
    "write_geotiff",
    "write_geotiff_blocks",
]
