"""Scenes: same seed, same bytes; labels agree with pixels; large ones hang together."""

from __future__ import annotations

import numpy as np
import pytest

from compression.backends.embedded.scenes import (
    COLOUR_NAMES,
    COLOURS,
    COVERS,
    EAST,
    NORTH,
    PATCH,
    SOUTH,
    TYPES,
    WEST,
    Scene,
    make_scene,
)
from compression.backends.embedded.textures import TILE, texture_bank

ARRAYS = ("image", "cover", "cover_share", "object_id", "road_links", "building", "road")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def large() -> list[Scene]:
    return [make_scene(seed, 1024) for seed in range(12)]


def patch(scene: Scene, row: int, col: int) -> np.ndarray:
    return scene.image[row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH].astype(float)


@pytest.mark.parametrize("size", [256, 512])
def test_the_same_seed_gives_the_same_bytes(size: int) -> None:
    first, second = make_scene(41, size), make_scene(41, size)
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)
    assert (first.objects, first.name, first.transform) == (second.objects, second.name, second.transform)


def test_another_seed_gives_another_scene() -> None:
    assert not np.array_equal(make_scene(1).image, make_scene(2).image)


def test_making_a_scene_leaves_global_chance_alone() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 (that is what is looked at)
    make_scene(3)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("size", [0, 100, 300, 16384])
def test_a_size_that_is_not_offered_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"multiple of 256 up to 8192"):
        make_scene(0, size)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or larger, got -1"):
        make_scene(-1)


def test_arrays_have_one_value_per_patch(scenes: list[Scene]) -> None:
    scene = scenes[0]
    assert scene.image.shape == (256, 256, 3)
    assert scene.image.dtype == np.uint8
    assert {getattr(scene, name).shape for name in ("cover", "object_id", "road_links", "building", "road")} == {
        (16, 16)
    }


def test_object_labels_are_the_listed_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        labels = {(int(row), int(col)): int(scene.object_id[row, col]) for row, col in np.argwhere(scene.object_id > 0)}
        assert labels == {
            (item.row, item.col): 1 + TYPES.index(item.type) * 5 + COLOUR_NAMES.index(item.colour)
            for item in scene.objects
        }


def test_every_object_shows_its_colour_on_its_patch(scenes: list[Scene]) -> None:
    for item, pixels in ((item, patch(scene, item.row, item.col)) for scene in scenes for item in scene.objects):
        shades = np.clip(np.array(COLOURS[item.colour]) * np.array([0.85, 0.975, 1.1])[:, None], 0, 255)
        distance = np.abs(pixels[..., None, :] - shades).max(-1).min(-1)
        assert (distance < 40).sum() >= 8, item


def test_covers_look_like_themselves(scenes: list[Scene]) -> None:
    means: dict[str, list[np.ndarray]] = {cover: [] for cover in COVERS}
    for scene in scenes:
        busy = scene.road | scene.building | (scene.object_id > 0)
        for row, col in np.argwhere(~busy):
            means[COVERS[scene.cover[row, col]]].append(patch(scene, row, col).mean((0, 1)))
    average = {cover: np.mean(values, 0) for cover, values in means.items()}
    for cover, (red, green, blue) in average.items():
        expected = {
            "water": blue > green > red,
            "forest": green > max(red, blue) and green < 100,
            "farmland": green > blue and red > blue and green < 160,
            "grass": green > red > blue and green > 120,
            "desert": red > green > blue and red > 180,
        }
        assert expected[cover], (cover, red, green, blue)


def test_all_road_patches_share_one_lane_colour_in_their_middle(scenes: list[Scene]) -> None:
    for scene in scenes:
        clear = scene.road & (scene.object_id == 0)
        middles = {tuple(scene.image[row * PATCH + 8, col * PATCH + 8]) for row, col in np.argwhere(clear)}
        assert len(middles) <= 1, scene.name


def test_buildings_stand_on_dry_land_off_the_road(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert not (scene.building & ((scene.cover == 0) | scene.road)).any()


def test_ships_float_and_planes_do_not(scenes: list[Scene]) -> None:
    for item, cover in ((item, COVERS[scene.cover[item.row, item.col]]) for scene in scenes for item in scene.objects):
        assert item.type != "ship" or cover == "water"
        assert item.type not in ("plane", "tank", "helipad") or cover != "water"


def test_cover_shares_sum_to_one(scenes: list[Scene]) -> None:
    assert all(scene.cover_share.sum() == pytest.approx(1) for scene in scenes)


def test_the_georeference_is_a_plausible_utm_zone_with_north_up(scenes: list[Scene], large: list[Scene]) -> None:
    for scene in (*scenes, *large):
        code = int(scene.crs.removeprefix("EPSG:"))
        a, b, left, d, e, top = scene.transform
        assert 32601 <= code <= 32660
        assert (a, b, d, e) == (scene.metres_per_pixel, 0.0, 0.0, -scene.metres_per_pixel)
        assert 0.3 <= scene.metres_per_pixel <= 1.0
        assert 166_000 < left < left + scene.size * a < 834_000
        assert 0 < top - scene.size * a < top < 9_300_000
        assert scene.georeference == "synthetic"


def test_names_are_for_people_and_carry_the_seed(scenes: list[Scene]) -> None:
    assert all(scene.name.endswith(f" {scene.seed}") and scene.name[0].isupper() for scene in scenes)
    assert len({scene.name for scene in scenes}) == len(scenes)


def test_a_river_crosses_every_cell_border_of_a_large_scene(large: list[Scene]) -> None:
    rivers = [scene for scene in large if scene.river is not None]
    assert rivers
    for scene in rivers:
        assert scene.river is not None
        assert np.abs(np.diff(scene.river.centre)).max() < PATCH
        cover = scene.cover if scene.river.vertical else scene.cover.T
        for border in (256, 512, 768):
            for line in (border - 1, border):
                assert cover[line // PATCH, int(scene.river.centre[line]) // PATCH] == 0


def test_roads_go_on_across_cell_borders(large: list[Scene]) -> None:
    crossings = 0
    for links in (scene.road_links for scene in large):
        assert np.array_equal((links[:, :-1] & EAST) > 0, (links[:, 1:] & WEST) > 0)
        assert np.array_equal((links[:-1] & SOUTH) > 0, (links[1:] & NORTH) > 0)
        crossings += int((links[:, 15:-1:16] & EAST > 0).sum() + (links[15:-1:16] & SOUTH > 0).sum())
    assert crossings > len(large)


def test_textures_repeat_without_a_seam() -> None:
    for cover, variants in texture_bank().items():
        for texture in variants:
            values = texture.astype(float)
            inside = np.abs(np.diff(values, axis=1)).mean()
            across = np.abs(values[:, 0] - values[:, TILE - 1]).mean()
            assert across < 1.25 * inside, cover


def test_no_object_reaches_over_the_border_of_a_cell() -> None:
    looked_at = 0
    for scene in (make_scene(seed, 512) for seed in range(40)):
        for item in (item for item in scene.objects if item.col == 15 and not scene.object_id[item.row, 16]):
            looked_at += 1
            beyond = patch(scene, item.row, 16)[:, :2]
            assert (np.abs(beyond - np.array(COLOURS[item.colour])).max(-1) < 25).sum() == 0, item
    assert looked_at > 0
