"""Pixels of every type become colours and a mask, whole or by window, at any size."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import ImageTooLarge, InvalidRendering, InvalidWindow
from analysis.imagery import Rendering, choose_rendering, clear_caches, describe, read_rgb
from analysis.imagery.cache import ByteCache
from analysis.imagery.pixels import overview, overview_factor
from analysis.imagery.raster import update_raster
from analysis.imagery.resample import Samples, resize
from tests.analysis.image_files import colours, deep_png, write_picture, write_tiff


def reduced(values: NDArray[Any], valid: NDArray[np.bool_], factor: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The mean over valid pixels of each factor x factor block, by loops."""
    height, width = -(-valid.shape[0] // factor), -(-valid.shape[1] // factor)
    means = np.zeros((height, width, values.shape[2]))
    seen = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            block = np.s_[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            if valid[block].any():
                means[row, column] = values[block][valid[block]].mean(axis=0)
                seen[row, column] = True
    return means, seen


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_lossless_file_is_read_back_exactly(suffix: str, tmp_path: Path) -> None:
    array = colours(37, 53)
    options = {"lossless": True} if suffix == ".webp" else {}
    data = read_rgb(write_picture(tmp_path / f"a{suffix}", array, **options))
    assert np.array_equal(data.rgb, array)
    assert data.mask.all()
    assert data.size == (37, 53)


@given(data=st.data())
def test_a_window_is_that_part_of_the_whole(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    array = colours(40, 60)
    suffix = data.draw(st.sampled_from([".png", ".tif"]))
    path = write_picture(tmp_path_factory.mktemp("window") / f"a{suffix}", array)
    left, top = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 39))
    right, bottom = data.draw(st.integers(left + 1, 60)), data.draw(st.integers(top + 1, 40))
    assert np.array_equal(read_rgb(path, (left, top, right, bottom)).rgb, array[top:bottom, left:right])


@pytest.mark.parametrize("factor", [2, 4, 5, 20])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_reducing_takes_the_mean_of_each_block(suffix: str, factor: int, tmp_path: Path) -> None:
    array = colours(40, 60)
    path = write_picture(tmp_path / f"a{suffix}", array)
    expected, _ = reduced(array, np.ones((40, 60), bool), factor)
    data = read_rgb(path, size=(40 // factor, 60 // factor))
    assert np.abs(data.rgb - expected).max() <= 1


def test_missing_pixels_never_bleed_into_their_neighbours(tmp_path: Path) -> None:
    array = np.full((40, 40), 200, np.uint8)
    array[:, :19] = 0
    path = write_tiff(tmp_path / "a.tif", array, nodata=0)
    data = read_rgb(path, size=(10, 10))
    assert np.array_equal(data.mask[0], [False] * 4 + [True] * 6)
    assert (data.rgb[:, 4:] == 200).all()
    assert (data.rgb[:, :4] == 0).all()


def test_enlarging_repeats_pixels(tmp_path: Path) -> None:
    array = colours(5, 7)
    data = read_rgb(write_picture(tmp_path / "a.png", array), size=(15, 28))
    assert np.array_equal(data.rgb, array.repeat(3, axis=0).repeat(4, axis=1))


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    factor=st.integers(1, 8),
    is_float=st.booleans(),
    seed=st.integers(0, 99),
)
def test_resizing_agrees_with_loops(height: int, width: int, factor: int, is_float: bool, seed: int) -> None:
    chance = np.random.default_rng(seed)
    height, width = height * factor, width * factor
    values = chance.integers(0, 256, (height, width, 2)).astype(np.float32 if is_float else np.uint8)
    valid = chance.random((height, width)) < 0.5
    values[~valid] = np.nan if is_float else 255
    size = (height // factor, width // factor)
    found = resize(Samples(values, valid), size, (0, 0, width, height))
    expected, seen = reduced(values, valid, factor)
    assert np.array_equal(found.valid, seen)
    assert np.abs(found.values[seen] - expected[seen]).max(initial=0) <= (1e-3 if is_float else 0.501)


@pytest.mark.parametrize(
    ("window", "size", "error", "words"),
    [
        ((0, 0, 11, 5), None, InvalidWindow, r"\(0, 0, 11, 5\) is not inside a\.png"),
        ((-1, 0, 5, 5), None, InvalidWindow, "left < right within 0 to 10"),
        ((5, 5, 5, 8), None, InvalidWindow, "is not inside"),
        (None, (0, 5), InvalidWindow, "0 x 5 .* is empty"),
        (None, (20_000, 20_000), ImageTooLarge, "ask for a smaller window or size"),
    ],
)
def test_impossible_windows_are_refused(
    window: Any, size: Any, error: type[Exception], words: str, tmp_path: Path
) -> None:
    path = write_picture(tmp_path / "a.png", colours(8, 10))
    with pytest.raises(error, match=words):
        read_rgb(path, window, size)


# What is shown of each kind of file.


def test_aerial_bands_of_red_green_blue_and_infrared_show_the_first_three_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", array, photometric="MINISBLACK")
    info = describe(path)
    assert "alpha" not in info.colours
    rendering = choose_rendering(path, info)
    assert rendering == Rendering((1, 2, 3), "rgb")
    assert str(rendering) == "bands 1, 2, 3 as red, green, blue; values as they are"
    assert np.array_equal(read_rgb(path).rgb, array[:, :, :3])


def test_bands_are_found_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(deep_png(np.random.default_rng(0).integers(0, 4000, (30, 40, 4), dtype=np.uint16)))
    assert choose_rendering(path, describe(path)).bands == (1, 2, 3)


def test_infrared_that_is_marked_as_alpha_makes_no_holes(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (200, 300, 4), dtype=np.uint8)
    info = describe(path := write_tiff(tmp_path / "a.tif", array, photometric="RGB", alpha="YES"))
    assert info.colours == ("red", "green", "blue", "undefined")
    assert info.notices == (
        "Band 4 is marked as alpha but holds many different values: it is taken for a band of its own.",
    )
    assert read_rgb(path).mask.all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_a_mask(suffix: str, tmp_path: Path) -> None:
    array = np.dstack([colours(20, 30), np.full((20, 30), 255, np.uint8)])
    array[:5, :, 3] = 0
    array[5:6, :, 3] = 1
    data = read_rgb(write_picture(tmp_path / f"a{suffix}", array, **({"lossless": True} if suffix == ".webp" else {})))
    assert np.array_equal(data.mask, array[:, :, 3] > 0)
    assert np.array_equal(data.rgb[6:], array[6:, :, :3])
    assert (data.rgb[:5] == 0).all()


def test_nodata_in_one_band_alone_is_a_colour(tmp_path: Path) -> None:
    array = np.full((4, 4, 3), 9, np.uint8)
    array[0] = 0
    array[1, :, 2] = 0
    data = read_rgb(write_tiff(tmp_path / "a.tif", array, nodata=0))
    assert np.array_equal(data.mask[:, 0], [False, True, True, True])
    assert data.rgb[1, 0].tolist() == [9, 9, 0]


def test_a_mask_inside_the_file_is_used(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:, 5:] = True
    path = write_tiff(tmp_path / "a.tif", colours(20, 30), mask=mask, photometric="RGB")
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    assert np.array_equal(read_rgb(path).mask, mask)


def test_nan_and_nodata_of_floating_point_are_missing(tmp_path: Path) -> None:
    array = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    array[0], array[1], array[2] = np.nan, -3.4028234663852886e38, np.inf
    path = write_tiff(tmp_path / "a.tif", array, nodata=-3.4028234663852886e38)
    data = read_rgb(path)
    assert np.array_equal(data.mask.all(axis=1), np.arange(20) > 2)
    assert np.array_equal(data.mask.any(axis=1), np.arange(20) > 2)
    assert (np.diff(data.rgb[3:, :, 0].ravel().astype(int)) >= 0).all()
    assert (data.rgb[3, 0, 0], data.rgb[-1, -1, 0]) == (0, 255)


def test_sixteen_bits_are_stretched_between_percentiles_that_are_written_down(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    path = write_tiff(tmp_path / "a.tif", array)
    rendering = choose_rendering(path, describe(path))
    assert rendering.ranges is not None
    assert rendering.ranges[0] == pytest.approx((199.98, 9799.02))
    assert str(rendering) == (
        "band 1 in grey; 2nd to 98th percentile of the band (199.98 to 9799.02), measured on 100 x 100 pixels"
    )
    grey = read_rgb(path).rgb[:, :, 0]
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)
    assert grey[50, 0] == round((5000 - 199.98) / (9799.02 - 199.98) * 255)


def test_unnamed_bands_are_stretched_apart_and_named_colours_together(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 4000, (30, 40, 3), dtype=np.uint16) * np.uint16([1, 2, 4])
    apart = write_tiff(tmp_path / "a.tif", array, photometric="MINISBLACK")
    together = write_tiff(tmp_path / "b.tif", array, photometric="RGB")
    assert len(choose_rendering(apart, describe(apart)).ranges or ()) == 3
    assert "of each band" in str(choose_rendering(apart, describe(apart)))
    assert len(choose_rendering(together, describe(together)).ranges or ()) == 1
    assert "of all bands together" in str(choose_rendering(together, describe(together)))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_real_type_has_a_picture(dtype: str, tmp_path: Path) -> None:
    array = np.arange(100).reshape(10, 10).astype(dtype)
    grey = read_rgb(write_tiff(tmp_path / "a.tif", array)).rgb[:, :, 0].astype(int)
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)
    assert (np.diff(grey.ravel()) >= 0).all()


def test_values_too_large_for_single_precision_are_missing_not_wrong(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.float64).reshape(10, 10)
    array[0, 0] = 1e300
    data = read_rgb(write_tiff(tmp_path / "a.tif", array), size=(5, 5))
    assert data.mask.all()
    assert (np.diff(data.rgb[:, 2, 0].astype(int)) > 0).all()


@pytest.mark.parametrize("value", [0, 7, 65_535])
def test_one_value_everywhere_is_a_middle_grey(value: int, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((3, 3), value, np.uint16))
    assert (read_rgb(path).rgb == 128).all()
    assert "percentile" not in str(choose_rendering(path, describe(path)))


def test_a_file_of_nothing_but_nodata_is_all_missing(tmp_path: Path) -> None:
    assert not read_rgb(write_tiff(tmp_path / "a.tif", np.zeros((3, 3, 3), np.float32), nodata=0)).mask.any()


def test_few_bits_fill_the_range(tmp_path: Path) -> None:
    array = np.arange(16, dtype=np.uint8).reshape(4, 4)
    path = write_tiff(tmp_path / "a.tif", array, nbits=4)
    assert np.array_equal(read_rgb(path).rgb[:, :, 0], array * 17)
    assert str(choose_rendering(path, describe(path))) == "band 1 in grey; 0 to 15 shown from black to white"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_palette_is_applied_before_anything_is_averaged(suffix: str, tmp_path: Path) -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 0, 255] + [0, 255, 0] * 254)
    image.putdata([0, 1] * 8)
    path = tmp_path / f"a{suffix}"
    image.save(path)
    assert read_rgb(path).rgb[0, :2].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert np.abs(read_rgb(path, size=(2, 2)).rgb - np.array([128, 0, 128])).max() <= 1
    assert str(choose_rendering(path, describe(path))) == "the palette of band 1; values as they are"


def test_a_transparent_palette_entry_is_missing(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=1)
    assert read_rgb(tmp_path / "a.png").mask.tolist() == [[True, False]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_colour(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    red, green, blue = read_rgb(path).rgb[8, 8]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bit_png_keeps_all_its_bits(bands: int, tmp_path: Path) -> None:
    array = np.arange(100 * bands, dtype=np.uint16).reshape(10, 10, bands) + np.uint16(512)
    path = tmp_path / "a.png"
    path.write_bytes(deep_png(array))
    # All values share their upper eight bits but for the last few: only the lower ones tell them apart.
    assert len(np.unique(read_rgb(path).rgb[:, :, 0])) > 80


def test_black_and_white_is_black_and_white(tmp_path: Path) -> None:
    array = np.eye(8, dtype=bool)
    for suffix in (".png", ".tif"):
        Image.fromarray(array).save(tmp_path / f"a{suffix}")
        assert np.array_equal(read_rgb(tmp_path / f"a{suffix}").rgb[:, :, 1], array * np.uint8(255))


def test_a_rendering_can_be_chosen_by_hand(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", array, photometric="MINISBLACK")
    infrared = read_rgb(path, rendering=Rendering((4, 1, 2), "rgb")).rgb
    assert np.array_equal(infrared, array[:, :, [3, 0, 1]])
    half = read_rgb(path, rendering=Rendering((1,), "grey", ((0.0, 510.0),))).rgb
    assert np.abs(half[:, :, 2] - array[:, :, 0] / 2).max() <= 0.5


def test_a_rendering_survives_being_stored(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.arange(100, dtype=np.uint16).reshape(10, 10))
    rendering = choose_rendering(path, describe(path))
    assert Rendering(**asdict(rendering)) == rendering


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bands": (1, 2), "kind": "rgb"}, "cannot show bands"),
        ({"bands": (0,), "kind": "grey"}, "counted from 1"),
        ({"bands": (1,), "kind": "grey", "ranges": ((5.0, 5.0),)}, "low < high"),
        ({"bands": (1,), "kind": "grey", "ranges": ((float("nan"), 5.0),)}, "finite"),
        ({"bands": (1, 2, 3), "kind": "rgb", "ranges": ((0.0, 1.0), (0.0, 1.0))}, "one for all or one for each"),
    ],
)
def test_impossible_renderings_cannot_be_built(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRendering, match=words):
        Rendering(**fields)


def test_a_rendering_must_fit_the_image(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.ones((4, 4), np.uint16))
    with pytest.raises(InvalidRendering, match=r"a\.tif has 1; choose among 1 to 1"):
        read_rgb(path, rendering=Rendering((1, 2, 3), "rgb"))
    with pytest.raises(InvalidRendering, match="has no palette"):
        read_rgb(path, rendering=Rendering((1,), "palette"))
    with pytest.raises(InvalidRendering, match="give a rendering with ranges"):
        read_rgb(path, rendering=Rendering((1,), "grey"))


# Large images, overviews, memory, threads.


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint8]]:
    """A tiled file of 3,000 x 4,100 pixels with a hole, and its colours."""
    array = colours(3000, 4100)
    array[500:900, 100:700] = 0
    path = tmp_path_factory.mktemp("large") / "large.tif"
    return write_tiff(path, array, tiled=True, blockxsize=256, blockysize=256, nodata=0, compress="deflate"), array


def test_a_zoomed_out_view_comes_from_a_kept_copy_and_is_still_the_mean(large: tuple[Path, NDArray[np.uint8]]) -> None:
    path, array = large
    info = describe(path)
    assert overview_factor(info) == 4
    kept = overview(path, info, (1, 2, 3), "rgb")
    assert overview(path, info, (1, 2, 3), "rgb") is kept
    part = array[400:1000, 0:800]
    means, seen = reduced(part, (part > 0).all(axis=2), 4)
    assert np.array_equal(kept.valid[100:250, 0:200], seen)
    assert np.abs(kept.values[100:250, 0:200] - means)[seen].max() <= 1.01  # bytes are rounded along each axis
    part = array[:1600, :1600]
    means, seen = reduced(part, (part > 0).all(axis=2), 16)
    data = read_rgb(path, (0, 0, 1600, 1600), (100, 100))
    assert np.array_equal(data.mask, seen)
    is_whole = reduced(np.ones((1600, 1600, 1)), (part == 0).all(axis=2), 16)[0][:, :, 0] == 0
    assert np.abs(data.rgb - means)[is_whole].max() <= 2.01


def test_overviews_in_the_file_are_used(tmp_path: Path) -> None:
    """They hold another colour here, so that their use shows."""
    path = write_tiff(tmp_path / "a.tif", np.full((512, 512, 3), 10, np.uint8), photometric="RGB", tiled=True)
    with update_raster(path, with_place=False) as dataset:
        dataset.build_overviews([4])
        dataset.write(np.full((3, 512, 512), 200, np.uint8))
    clear_caches()
    assert describe(path).overviews == (4,)
    assert (read_rgb(path, size=(512, 512)).rgb == 200).all()
    assert (read_rgb(path, size=(256, 256)).rgb == 200).all()
    assert (read_rgb(path, size=(128, 128)).rgb == 10).all()
    assert (read_rgb(path, size=(32, 32)).rgb == 10).all()


def test_a_small_read_of_a_large_file_takes_little_memory(large: tuple[Path, NDArray[np.uint8]]) -> None:
    path, array = large
    clear_caches()
    describe(path)
    tracemalloc.start()
    data = read_rgb(path, size=(300, 410))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.size == (300, 410)
    assert peak < 3 * array.nbytes


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    array = colours(300, 300)
    paths = [write_picture(tmp_path / "a.png", array), write_picture(tmp_path / "a.tif", array)]
    clear_caches()

    def one(k: int) -> bool:
        left, top = k * 37 % 200, k * 53 % 200
        window = (left, top, left + 100, top + 100)
        return np.array_equal(read_rgb(paths[k % 2], window).rgb, array[top : top + 100, left : left + 100])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(80)))


def test_a_cached_value_is_made_once_however_many_threads_ask() -> None:
    made: list[int] = []
    started = threading.Barrier(6)
    cache: ByteCache[NDArray[np.uint8]] = ByteCache(100)

    def make() -> NDArray[np.uint8]:
        made.append(1)
        return np.zeros(10, np.uint8)

    def ask() -> NDArray[np.uint8]:
        started.wait()
        return cache.get("key", make)

    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(ask) for _ in range(6)]]
    assert len(made) == 1
    assert all(answer is answers[0] for answer in answers)


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache: ByteCache[NDArray[np.uint8]] = ByteCache(25)
    made: list[str] = []

    def get(key: str, length: int = 10) -> None:
        cache.get(key, lambda: made.append(key) or np.zeros(length, np.uint8))  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    assert cache.nbytes == 20
    get("huge", 1000)
    assert cache.nbytes == 1000
    get("a")
    assert cache.nbytes == 10


def test_what_fails_to_be_made_is_tried_again() -> None:
    cache: ByteCache[NDArray[np.uint8]] = ByteCache(25)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: np.zeros(1 // 0, np.uint8))
    assert cache.get("key", lambda: np.zeros(3, np.uint8)).nbytes == 3
