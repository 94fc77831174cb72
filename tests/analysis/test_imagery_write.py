"""What is written is complete or not there, and reads back as it was."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import ImageNotWritten, InvalidWindow
from analysis.imagery import (
    describe,
    encode_png,
    media_type,
    read_rgb,
    thumbnail,
    write,
    write_geotiff,
    write_geotiff_blocks,
)
from analysis.imagery.raster import open_raster
from tests.analysis.image_files import TEN_METRES, UTM, colours, write_picture, write_tiff


@pytest.mark.parametrize("channels", [3, 4])
def test_png_holds_the_very_pixels(channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    with Image.open(BytesIO(encode_png(array)), formats=["PNG"]) as image:
        assert np.array_equal(np.asarray(image), array)
    assert encode_png(array) == encode_png(array.copy())


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)])
def test_png_of_anything_else_is_refused(array: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[height, width, 3 or 4\]"):
        encode_png(array)


def test_a_thumbnail_fits_and_is_small(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(300, 600))
    small = thumbnail(path, 100)
    assert media_type(small) == "image/jpeg"
    with Image.open(BytesIO(small), formats=["JPEG"]) as image:
        assert image.size == (100, 50)
    with Image.open(BytesIO(thumbnail(path, 10_000)), formats=["JPEG"]) as image:
        assert image.size == (600, 300)
    with pytest.raises(InvalidWindow, match="give at least 1"):
        thumbnail(path, 0)


def test_a_thumbnail_keeps_what_is_missing_transparent(tmp_path: Path) -> None:
    array = colours(300, 600)
    array[:, :300] = 0
    small = thumbnail(write_tiff(tmp_path / "a.tif", array, nodata=0), 100)
    assert media_type(small) == "image/png"
    with Image.open(BytesIO(small), formats=["PNG"]) as image:
        assert np.array_equal(np.asarray(image)[:, :, 3] == 0, np.tile(np.arange(100) < 50, (50, 1)))


@pytest.mark.parametrize("tiled", [True, False])
def test_a_geotiff_reads_back_as_it_was(tiled: bool, tmp_path: Path) -> None:
    array = colours(700, 900)
    path = tmp_path / "a.tif"
    write_geotiff(path, array, UTM, TEN_METRES, tiled=tiled, tags={"KEEPMAP_SCENE": "7"})
    info = describe(path)
    assert (info.crs, info.transform, info.is_tiled, info.overviews) == (UTM, TEN_METRES, tiled, ())
    assert info.colours == ("red", "green", "blue")
    assert np.array_equal(read_rgb(path).rgb, array)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    with open_raster(path, "a.tif", with_place=True) as dataset:
        assert dataset.tags()["KEEPMAP_SCENE"] == "7"


def test_plain_pixels_can_be_written_too(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", colours(20, 30), None, None)
    assert not describe(tmp_path / "a.tif").is_georeferenced


def test_overviews_go_down_to_256_pixels(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", colours(1100, 900), UTM, TEN_METRES, overviews=True)
    assert describe(tmp_path / "a.tif").overviews == (2, 4, 8)


def test_blocks_need_not_be_in_memory_together(tmp_path: Path) -> None:
    array = colours(1100, 900)

    def blocks() -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.uint8]]]:
        for top in range(0, 1100, 512):
            for left in range(0, 900, 512):
                right, bottom = min(left + 512, 900), min(top + 512, 1100)
                yield (left, top, right, bottom), array[top:bottom, left:right]

    by_blocks, at_once = tmp_path / "a.tif", tmp_path / "b.tif"
    write_geotiff_blocks(by_blocks, (1100, 900), blocks(), UTM, TEN_METRES)
    write_geotiff(at_once, array, UTM, TEN_METRES)
    assert np.array_equal(read_rgb(by_blocks).rgb, array)
    assert by_blocks.stat().st_size == pytest.approx(at_once.stat().st_size, rel=0.01)


def test_the_same_scene_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_geotiff(tmp_path / name, colours(300, 300), UTM, TEN_METRES, overviews=True, tags={"KEEPMAP_SCENE": "7"})
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_geotiff(path, colours(20, 30), UTM, TEN_METRES)
    before = path.read_bytes()

    def blocks() -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.uint8]]]:
        yield (0, 0, 30, 10), colours(10, 30)
        raise KeyError("the painter stopped")

    with pytest.raises(KeyError, match="the painter stopped"):
        write_geotiff_blocks(path, (20, 30), blocks(), UTM, TEN_METRES)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("crs", "transform", "words"),
    [
        (UTM, None, "a reference system and a transform, or neither"),
        (None, TEN_METRES, "a reference system and a transform, or neither"),
        ("EPSG:999999", TEN_METRES, r"a\.tif could not be written"),
        (UTM, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "was not written as asked|could not be written"),
    ],
    ids=["no transform", "no system", "unknown system", "flat transform"],
)
def test_a_place_that_cannot_be_written_is_refused(
    crs: str | None, transform: tuple[float, float, float, float, float, float] | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageNotWritten, match=words) as refusal:
        write_geotiff(tmp_path / "a.tif", colours(20, 30), crs, transform)
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in str(refusal.value)


def test_a_missing_folder_is_named_by_the_file_alone(tmp_path: Path) -> None:
    with pytest.raises(ImageNotWritten, match=r"^a\.tif could not be written .* check the folder") as refusal:
        write_geotiff(tmp_path / "absent" / "a.tif", colours(20, 30), UTM, TEN_METRES)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("room_bytes", [1_000, 100_000, 270_000])
def test_a_full_disk_leaves_nothing_behind(room_bytes: int, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        with pytest.raises(ImageNotWritten, match=r"^a\.tif could not be written .* free space"):
            write_geotiff(tmp_path / "a.tif", colours(300, 300), UTM, TEN_METRES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lacks_its_end_is_noticed_though_gdal_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, *, name: str) -> object:
        path.write_bytes(path.read_bytes()[:-100])
        return describe(path, name=name)

    monkeypatch.setattr(write, "describe", cut)
    with pytest.raises(ImageNotWritten, match=r"a\.tif could not be written .* free space"):
        write_geotiff(tmp_path / "a.tif", colours(200, 300), UTM, TEN_METRES)
    assert list(tmp_path.iterdir()) == []


def test_only_colours_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rgb must be uint8 \[height, width, 3\]"):
        write_geotiff(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), UTM, TEN_METRES)
