"""How large an image may be before it is refused, checked from the header alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The largest image that is accepted; every figure is inclusive.

    PNG, JPEG and WebP are decoded whole, so `decoded_pixels` and `decoded_bytes` bound the memory of one such image.
    TIFF is read by window: `raster_bytes` bounds the time of one pass over all of it and `block_bytes` the memory of
    one strip or tile, which is the least that can be decoded.
    """

    file_bytes: int = 4 * 2**30
    side_pixels: int = 200_000
    bands: int = 256
    #: Pillow warns above this many pixels (a quarter of 2**30 bytes of RGB); staying at it keeps that guard silent.
    decoded_pixels: int = 89_478_485
    decoded_bytes: int = 384 * 2**20
    #: 23,170 x 23,170, so that 20,000 x 20,000 fits.
    raster_pixels: int = 2**29
    raster_bytes: int = 16 * 2**30
    block_bytes: int = 256 * 2**20


LIMITS = Limits()

#: The longest side of the reduced copy that zoomed-out views of a large image are drawn from.
OVERVIEW_SIDE_PIXELS = 2048

#: One step of a read decodes about this many source pixels, whatever the size of the window.
CHUNK_PIXELS = 2**22

#: The largest array that one call hands out: 134 megapixels, 402 MB as RGB.
OUTPUT_PIXELS = 2**27

#: GDAL's cache of decoded blocks, for the whole process.
BLOCK_CACHE_BYTES = 64 * 2**20

#: What stays in memory between tiles: whole PNG, JPEG and WebP images, and reduced copies.
DECODED_CACHE_BYTES = 384 * 2**20
OVERVIEW_CACHE_BYTES = 192 * 2**20
