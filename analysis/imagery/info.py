"""The facts about one image file that everything else relies on."""

from dataclasses import dataclass

from analysis.imagery.header import Format


@dataclass(frozen=True)
class ImageInfo:
    """One image file as its content describes it.

    `width` and `height` count the pixels as they are shown, after an EXIF orientation (PNG, JPEG, WebP) is applied.
    `bits` counts bits per sample, `colours` names each band ("red", "gray", "alpha", "palette", "undefined", …).
    `crs` is "EPSG:…" or WKT; `transform` is (a, b, c, d, e, f) with x = a·col + b·row + c and y = d·col + e·row + f at
    pixel corners. Both are None unless the file itself holds both. `overviews` holds the reductions stored in the
    file, such as (2, 4, 8). `tags` names the TIFF metadata items that begin with "KEEPMAP_". `notices` are sentences
    for the user about what was set aside.
    """

    name: str
    sha256: str
    file_bytes: int
    format: Format
    width: int
    height: int
    bands: int
    dtype: str
    bits: int
    colours: tuple[str, ...]
    orientation: int = 1
    is_tiled: bool = False
    overviews: tuple[int, ...] = ()
    nodata: float | None = None
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    is_mappable: bool = False
    tags: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels."""
        return self.height, self.width

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The whole image as (left, top, right, bottom)."""
        return 0, 0, self.width, self.height

    @property
    def has_overviews(self) -> bool:
        """Whether the file holds reduced copies of itself."""
        return bool(self.overviews)

    @property
    def is_georeferenced(self) -> bool:
        """Whether the file says where on Earth it lies. `is_mappable` adds that Web Mercator can show it there."""
        return self.crs is not None

    @property
    def alpha_band(self) -> int | None:
        """The number of the band that says which pixels are seen, counted from 1."""
        return self.colours.index("alpha") + 1 if "alpha" in self.colours else None
