"""Files are judged by their content, described without decoding, and refused in one sentence."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint

from analysis.errors import (
    DamagedImage,
    ImageError,
    ImageTooLarge,
    MissingImage,
    NotAnImage,
    TruncatedImage,
    UnsupportedImage,
)
from analysis.imagery import LIMITS, describe, read_rgb
from analysis.imagery.photo import _TURNS, _turned
from tests.analysis.image_files import (
    TEN_METRES,
    UTM,
    colours,
    deep_png,
    jpeg_header,
    png,
    tiff,
    webp_header,
    write_picture,
    write_tiff,
)

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif"}


@pytest.mark.parametrize("kind", SUFFIXES)
def test_each_format_is_told_by_its_content_under_any_name(kind: str, tmp_path: Path) -> None:
    written = write_picture(tmp_path / f"right{SUFFIXES[kind]}", colours(20, 30))
    for suffix in (*SUFFIXES.values(), ".txt", ""):
        renamed = shutil.copy(written, tmp_path / f"renamed{suffix}")
        info = describe(renamed)
        assert (info.format, info.size, info.bands, info.dtype, info.bits) == (kind, (20, 30), 3, "uint8", 8)
        assert info.name == renamed.name


@pytest.mark.parametrize("kind", SUFFIXES)
def test_one_pixel_is_an_image(kind: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / f"one{SUFFIXES[kind]}", np.full((1, 1, 3), 128, np.uint8))
    assert describe(path).size == (1, 1)
    assert read_rgb(path).rgb.shape == (1, 1, 3)


def test_a_description_holds_what_the_file_states(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "a.tif",
        np.ones((600, 500, 4), np.uint16),
        crs=UTM,
        transform=TEN_METRES,
        nodata=0,
        tiled=True,
        blockxsize=256,
        blockysize=256,
    )
    info = describe(path)
    assert (info.format, info.size, info.bands, info.dtype, info.bits) == ("TIFF", (600, 500), 4, "uint16", 16)
    assert (info.crs, info.transform, info.nodata) == (UTM, TEN_METRES, 0)
    assert info.is_georeferenced
    assert info.is_mappable
    assert info.is_tiled
    assert not info.has_overviews
    assert info.file_bytes == path.stat().st_size
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.notices == ()


def test_a_name_can_be_given_for_a_file_that_is_stored_under_another(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a7c2.png", colours(4, 4))
    assert describe(path, name="harbour.png").name == "harbour.png"
    broken = tmp_path / "b81f"
    broken.write_bytes(b"hello")
    with pytest.raises(NotAnImage, match=r"^harbour\.png is not an image"):
        describe(broken, name="harbour.png")


def test_a_changed_file_is_described_anew(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(4, 4))
    before = describe(path)
    write_picture(path, colours(5, 6))
    os.utime(path, ns=(1, 1))
    after = describe(path)
    assert (before.size, after.size) == ((4, 4), (5, 6))
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, world\n", "it is text"),
        (b"<VRTDataset rasterXSize='9'></VRTDataset>", "a GDAL virtual raster"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<!doctype html><html></html>", "an HTML page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"GIF89a\1\0\1\0", "a GIF"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\0\1\2\3\4", "unknown content .* 00 01 02 03"),
        (b"\x89PN", "unknown content"),
    ],
    ids=["empty", "text", "vrt", "svg", "html", "pdf", "gif", "zip", "bytes", "half a signature"],
)
def test_what_is_no_image_is_refused_under_an_images_name(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    path.write_bytes(content)
    with pytest.raises(NotAnImage, match=words) as refusal:
        describe(path)
    assert "PNG, JPEG, WebP and TIFF" in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("name", ["absent.tif", ".", "a\0b.tif", "x" * 300])
def test_a_path_without_a_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingImage, match="give the path of a local image file"):
        describe(tmp_path / name)


@pytest.mark.parametrize("address", ["/vsicurl/http://127.0.0.1:9/a.tif", "/vsimem/a.tif", "http://127.0.0.1:9/a.tif"])
def test_nothing_but_a_local_file_is_opened(address: str) -> None:
    with pytest.raises(MissingImage):
        describe(Path(address))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_cut_off_anywhere_is_refused_before_decoding(kind: str, tmp_path: Path) -> None:
    whole = write_picture(tmp_path / f"whole{SUFFIXES[kind]}", colours(64, 64)).read_bytes()
    path = tmp_path / "cut"
    for length in (12, 17, 30, 90, len(whole) // 3, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TruncatedImage, match="copy or export it again"):
            describe(path)


def test_a_cut_off_tiled_geotiff_is_refused_though_its_header_is_whole(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", colours(600, 600), crs=UTM, transform=TEN_METRES, tiled=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedImage, match="points beyond its end"):
        describe(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(100_000, 100_000), "claims 100,000 x 100,000 pixels; at most 536,870,912"),
        (png(100_000, 100_000), "claims 100,000 x 100,000 pixels; at most 89,478,485 pixels are allowed for PNG"),
        (webp_header(16_000, 16_000), "claims 16,000 x 16,000 pixels"),
        (jpeg_header(65_000, 65_000), "claims 65,000 x 65,000 pixels"),
        (tiff(2**31 - 1, 1), "claims 2,147,483,647 x 1 pixels"),
        (tiff(200_000, 2000), "blocks of 400,000,000 bytes"),
        (tiff(1, 2**29, t278=1), "at most 200,000 along a side"),
        (tiff(20_000, 20_000), "blocks of 400,000,000 bytes"),
        (tiff(8, 8, t277=300), "300 bands; 1 to 256 are allowed"),
        (tiff(20_000, 20_000, t278=16, t277=64), "would decode to 25,600,000,000 bytes"),
        (png(9000, 9000, bits=16, colour=6), "would decode to 648,000,000 bytes"),
    ],
    ids=["tiff", "png", "webp", "jpeg", "line", "lines", "column", "strip", "bands", "cube", "deep"],
)
def test_too_much_is_refused_from_the_header(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageTooLarge, match=words):
        describe(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_twenty_thousand_pixels_square_are_allowed_where_they_are_tiled() -> None:
    assert LIMITS.raster_pixels >= 20_000**2
    assert LIMITS.raster_bytes >= 20_000**2 * 4 * 8


def test_limits_can_be_tightened(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(10, 10))
    with pytest.raises(ImageTooLarge, match="at most 99 pixels"):
        describe(path, limits=replace(LIMITS, decoded_pixels=99))
    with pytest.raises(ImageTooLarge, match="at most 10 are allowed; cut out"):
        describe(path, limits=replace(LIMITS, file_bytes=10))


def test_an_overview_larger_than_the_limits_is_refused(tmp_path: Path) -> None:
    second = struct.pack("<H", 5) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((254, 1), (256, 90_000), (257, 90_000), (258, 8), (273, 256))
    )
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(16, 16, next_directory=768) + second + bytes(4))
    with pytest.raises(ImageTooLarge, match="90,000 x 90,000"):
        describe(path)


@pytest.mark.parametrize("start", [8, 768], ids=["to itself", "through another"])
def test_directories_in_a_loop_are_refused(start: int, tmp_path: Path) -> None:
    second = tiff(16, 16)[8:118] + struct.pack("<I", 8)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(16, 16, next_directory=start) + second)
    with pytest.raises(DamagedImage, match="directories form a loop"):
        describe(path)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (tiff(0, 5), DamagedImage, "claims 0 x 5 pixels"),
        (png(0, 5), DamagedImage, "claims 0 x 5 pixels"),
        (png(5, 5, colour=5), DamagedImage, "of no known kind"),
        (b"II*\0\0\0\0\0", DamagedImage, "without an image"),
        (b"II*\0\xff\xff\xff\x7f", TruncatedImage, "points beyond its end"),
        (tiff(16, 16, t339=6), UnsupportedImage, "complex numbers"),
        (tiff(16, 16, t259=12345), DamagedImage, "cannot be decoded"),
        (jpeg_header(5, 5).replace(b"\xff\xc0", b"\xff\xc3"), UnsupportedImage, "baseline and progressive"),
    ],
    ids=["no width", "no width png", "colour", "no directory", "lost directory", "complex", "codec", "lossless"],
)
def test_contradictions_are_named(content: bytes, error: type[ImageError], words: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        read_rgb(path)


def test_damage_inside_the_pixels_shows_when_they_are_read(tmp_path: Path) -> None:
    broken_png = tmp_path / "a.png"
    broken_png.write_bytes(png(50, 50, pixels=bytes(100)))
    assert describe(broken_png).size == (50, 50)
    with pytest.raises(DamagedImage, match=r"^the pixels of a\.png cannot be decoded"):
        read_rgb(broken_png)
    path = write_tiff(tmp_path / "a.tif", colours(64, 64), compress="deflate")
    content = bytearray(path.read_bytes())
    content[-4000:-3000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(DamagedImage, match=r"^the pixels of a\.tif cannot be decoded") as refusal:
        read_rgb(path)
    assert str(tmp_path) not in str(refusal.value)


def _small(folder: Path) -> list[bytes]:
    return [write_picture(folder / f"s{suffix}", colours(9, 9)).read_bytes() for suffix in SUFFIXES.values()]


@given(data=st.data())
def test_any_damaged_file_is_read_or_refused_by_name(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(data.draw(st.sampled_from(_small(folder))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged"
    path.write_bytes(content)
    try:
        words = str(describe(path))
        read_rgb(path, size=(4, 4))
    except ImageError as refusal:
        words = str(refusal)
    assert str(folder) not in words


def _sidecars(path: Path) -> None:
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500000\n4200000\n")
    path.with_suffix(".prj").write_text("EPSG:32618")
    path.with_name(path.name + ".aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32618</SRS><GeoTransform>500000,10,0,4200000,0,-10</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    other = write_tiff(path.with_name("other.tif"), np.zeros((8, 8), np.uint8))
    shutil.copy(other, path.with_name(path.name + ".ovr"))
    shutil.copy(other, path.with_name(path.name + ".msk"))


def test_files_beside_an_image_are_not_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((16, 16), 7, np.uint8))
    _sidecars(path)
    info = describe(path)
    assert (info.crs, info.transform, info.nodata, info.overviews) == (None, None, None, ())
    assert read_rgb(path).mask.all()


def test_a_reference_system_without_a_transform_places_nothing(tmp_path: Path) -> None:
    info = describe(write_tiff(tmp_path / "a.tif", colours(8, 8), crs=UTM))
    assert not info.is_georeferenced
    assert info.notices == ("The file names a reference system but no transform; the image is shown in plain pixels.",)


def test_a_transform_without_a_reference_system_places_nothing(tmp_path: Path) -> None:
    info = describe(write_tiff(tmp_path / "a.tif", colours(8, 8), transform=TEN_METRES))
    assert (info.crs, info.transform) == (None, None)
    assert info.notices == ("The file holds a transform but no reference system; the image is shown in plain pixels.",)


def test_ground_control_points_alone_place_nothing(tmp_path: Path) -> None:
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    points = [GroundControlPoint(row, column, 500_000 + column, 4_200_000 - row, 0) for row, column in corners]
    info = describe(write_tiff(tmp_path / "a.tif", colours(8, 8), crs=UTM, gcps=points))
    assert not info.is_georeferenced
    assert "ground control points but no transform" in info.notices[0]


def test_further_pages_are_counted_and_the_first_is_used(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (9, 9), "blue")
    path = tmp_path / "a.tif"
    first.save(path, save_all=True, append_images=[second])
    assert describe(path).size == (6, 8)
    assert describe(path).notices == ("The file holds 2 pictures; the first is used.",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_exif_orientation_is_applied(suffix: str, orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255  # the stored upper left corner is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / f"a{suffix}", stored, exif=exif)
    info, data = describe(path), read_rgb(path)
    assert info.size == ((16, 32) if orientation < 5 else (32, 16)) == data.size
    rows, columns = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("top", "left"),
        6: ("top", "right"),
        7: ("bottom", "right"),
        8: ("bottom", "left"),
    }[orientation]
    corner = data.rgb[2 if rows == "top" else -3, 2 if columns == "left" else -3]
    assert (corner > 200).all()
    assert bool(info.notices) == (orientation != 1)


def test_sixteen_bit_colour_turns_upright_like_any_other() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for orientation, turn in _TURNS.items():
        assert np.array_equal(_turned(array, orientation), np.asarray(Image.fromarray(array).transpose(turn)))


def test_damaged_exif_does_not_stop_a_picture(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg", colours(8, 8), exif=b"Exif\0\0II*\0\xff\xff\0\0rubbish")
    assert describe(path).orientation == 1
    assert read_rgb(path).mask.all()


@pytest.mark.parametrize(
    ("make", "bands", "bits"),
    [
        (lambda path: path.write_bytes(deep_png(np.ones((4, 4, 3), np.uint16))), ("red", "green", "blue"), 16),
        (lambda path: Image.new("1", (4, 4)).save(path, "PNG"), ("gray",), 1),
        (lambda path: Image.new("P", (4, 4)).save(path, "PNG"), ("palette",), 1),
        (lambda path: Image.new("CMYK", (4, 4)).save(path, "JPEG"), ("cyan", "magenta", "yellow", "black"), 8),
        (lambda path: Image.new("LA", (4, 4)).save(path, "PNG"), ("gray", "alpha"), 8),
        (
            lambda path: Image.new("RGBA", (4, 4)).save(path, "WEBP", lossless=True),
            ("red", "green", "blue", "alpha"),
            8,
        ),
    ],
    ids=["16 bits", "1 bit", "palette", "cmyk", "grey and alpha", "alpha"],
)
def test_bands_are_named(make: Callable[[Path], object], bands: tuple[str, ...], bits: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    make(path)
    info = describe(path)
    assert (info.colours, info.bits, info.bands) == (bands, bits, len(bands))
