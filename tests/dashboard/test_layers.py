"""Layer tiles, against small cases computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.imagery import describe, lonlat_to_pixel, write_geotiff
from analysis.pipeline import open_image
from compression.grid import TokenGrid
from compression.selection import Selection
from dashboard.layers import Layer, Look, change_of, layer_names, paint
from dashboard.opened import Opened
from dashboard.palette import palette
from dashboard.placement import place_image
from dashboard.tiles import MARGIN, TILE, TileView, plain_view
from tests.dashboard.painted import cell, four_by_four, one_of_each
from tests.factories import make_image_ref, make_run

LIGHT, DARK = palette("light"), palette("dark")
WHOLE = plain_view(0, 0, 0, 0)


def drawn(run: Opened, layer: Layer, view: TileView = WHOLE, **wanted: object) -> NDArray[np.uint8]:
    return paint(run, Look(layer=layer, **wanted), view, LIGHT)  # type: ignore[arg-type]


def test_a_kept_token_is_left_clear() -> None:
    picture = drawn(four_by_four(one_of_each()), "retention")
    assert not cell(picture, 2, 2).any()


@pytest.mark.parametrize(("theme", "veil"), [("light", (245, 246, 244, 204)), ("dark", (13, 19, 18, 199))])
def test_a_dropped_token_is_veiled_in_the_colour_of_the_theme(theme: str, veil: tuple[int, ...]) -> None:
    picture = paint(four_by_four(one_of_each()), Look("retention"), WHOLE, {"light": LIGHT, "dark": DARK}[theme])
    assert np.abs(cell(picture, 0, 0).astype(int) - veil).max() <= 1


def test_a_merged_token_is_half_veiled_under_a_hatch() -> None:
    merged = cell(drawn(four_by_four(one_of_each()), "retention"), 1, 2)
    rows, cols = np.indices(merged.shape[:2])
    phase = (rows + cols + CORNER) % 4
    between = merged[phase == 2]
    # The veil alone, .42 opaque; on the line .914 of a pixel is covered with ink of .72.
    assert np.abs(between.astype(int) - (245, 246, 244, 107)).max() <= 1
    on_line = 0.914 * 0.72
    assert np.abs(merged[phase == 0][:, 3] / 255 - (on_line + 0.42 * (1 - on_line))).max() < 0.01
    assert merged[phase == 0][:, 0].mean() < between[:, 0].mean() - 100


CORNER = (1 * 64 + 4) + (2 * 64 + 4)
"""x + y of the first pixel that `cell` gives for row 1, column 2."""


def test_merged_tokens_are_not_shown_as_dropped() -> None:
    picture = drawn(four_by_four(one_of_each()), "retention")
    assert cell(picture, 1, 2)[..., 3].std() > 20
    assert cell(picture, 0, 0)[..., 3].std() == 0


def test_merged_tokens_share_one_outline_with_their_target_and_the_target_has_a_dot() -> None:
    picture = drawn(four_by_four(one_of_each()), "retention")
    edge = 2 * 64  # between token 5 and token 6: no line; above them: one
    assert not picture[1 * 64 + 20, edge - 4 : edge - 1].any()
    assert picture[64, 64 + 20, 3] > 180
    centre = picture[64 + 32, 64 + 32]
    assert centre[3] == 255
    assert centre[:3].max() < 40


def test_cells_below_six_pixels_have_no_outline_and_no_dot() -> None:
    tokens = 64 * 64
    selection = Selection.merge(tokens, [0], [([0, 1], [0.5, 0.5])])
    picture = drawn(four_by_four(selection), "retention")
    assert not picture[:4, :4].any()


@pytest.mark.parametrize("layer", layer_names())
def test_tiles_join(layer: Layer) -> None:
    """A view that straddles two tiles shows the same pixels as the two of them."""
    run, first = (
        Opened.of(make_run(3, (32, 32), strategy, image=make_image_ref(0, (512, 512), georeferenced=False)))
        for strategy in ("dualcomp@0.25", "identity@1.0")
    )
    look = Look(layer, against=first)
    left, right = (paint(run, look, plain_view(1, 1, x, 0), LIGHT) for x in (0, 1))
    middle = paint(run, look, _shifted(TILE // 2), LIGHT)
    stitched = np.concatenate([left[:, TILE // 2 :], right[:, : TILE // 2]], axis=1)
    assert np.abs(middle.astype(int) - stitched).max() <= 1


def _shifted(by: int) -> TileView:
    """The tile that begins `by` pixels right of the first one, of an image of 512 pixels at its own zoom."""
    base = plain_view(1, 1, 0, 0)
    forward = base.forward.copy()
    forward[0, 2] -= by
    return TileView(base.x + by, base.y, base.left + by, base.top, forward)


def test_the_hatch_is_counted_over_the_whole_map() -> None:
    """Two tiles of nothing but merged tokens: what is seen depends on (x + y) modulo 4 alone."""
    everything = Selection.merge(16, [-1], [(np.arange(16), np.full(16, 1 / 16))])
    run = four_by_four(everything)
    for x, y in ((0, 0), (1, 0), (1, 1)):
        picture = paint(run, Look("retention"), plain_view(0, 1, x, y), LIGHT)
        rows, cols = np.indices((TILE, TILE))
        phase = (rows + cols + TILE * (x + y)) % 4
        for one in range(4):
            assert np.ptp(picture[phase == one], axis=0).max() == 0


def test_nothing_is_painted_beside_the_image() -> None:
    run = Opened.of(make_run(0, (4, 4), "divprune@0.25", image=make_image_ref(0, (100, 200), georeferenced=False)))
    picture = paint(run, Look("retention"), plain_view(0, 0, 0, 0), LIGHT)
    assert picture[:100, :200].any()
    assert not picture[100:].any()
    assert not picture[:, 200:].any()


def test_attention_is_coloured_by_the_square_root_of_its_share_of_the_scale() -> None:
    values = [np.nan] * 16
    values[0], values[1], values[2] = 0.0, 0.25, 0.5
    picture = drawn(four_by_four(one_of_each(), attention=values), "attention", scale=(0.0, 1.0))
    for token, share in ((0, 0.0), (1, 0.5), (2, 0.5**0.5)):
        inside = cell(picture, 0, token)[20, 20]
        assert inside[3] / 255 == pytest.approx(0.5 + 0.42 * share, abs=0.005)
        assert np.abs(inside[:3] / 255 - LIGHT.sequential[round(share * 255)]).max() < 0.01


def test_a_token_that_was_not_there_has_no_attention_and_is_veiled() -> None:
    values = [0.1] * 15 + [np.nan]
    picture = drawn(four_by_four(one_of_each(), attention=values), "attention")
    assert np.abs(cell(picture, 3, 3)[10, 10].astype(int) - (245, 246, 244, 204)).max() <= 1


def test_a_layer_that_was_not_recorded_is_empty() -> None:
    assert not drawn(four_by_four(one_of_each()), "attention").any()
    assert not drawn(four_by_four(one_of_each(), attention=[0.1] * 16), "attention", depth=7).any()


def test_without_scores_the_image_is_only_dimmed() -> None:
    picture = drawn(four_by_four(one_of_each()), "scores")
    assert np.ptp(picture.reshape(-1, 4), axis=0).max() == 0
    assert picture[0, 0, 3] == 107


def test_scores_reach_from_the_lowest_to_the_highest() -> None:
    scores = np.linspace(-3, 5, 16)
    run = four_by_four(Selection.prune(16, [15], scores=scores))
    picture = drawn(run, "scores")
    assert np.abs(cell(picture, 0, 0)[9, 9, :3] / 255 - LIGHT.sequential[0]).max() < 0.01
    assert np.abs(cell(picture, 3, 3)[9, 9, :3] / 255 - LIGHT.sequential[255]).max() < 0.01


def test_the_largest_cluster_has_the_first_colour() -> None:
    selection = Selection.merge(16, [0, 15], [([0, 1], [0.5, 0.5]), ([13, 14, 15], [0.2, 0.2, 0.6])])
    run = four_by_four(selection)
    picture = drawn(run, "clusters")
    assert np.abs(cell(picture, 3, 1)[8, 8, :3] / 255 - LIGHT.categories[0][:3]).max() < 0.01
    assert np.abs(cell(picture, 0, 1)[8, 8, :3] / 255 - LIGHT.categories[1][:3]).max() < 0.01


def test_the_traced_path_leads_through_the_centres_of_its_tokens() -> None:
    selection = Selection.merge(
        16, [12, 5, 6, 7], [([12], [1.0]), ([5], [1.0]), ([6], [1.0]), ([7], [1.0])], stream=[0, 1, 1, 1]
    )
    picture = drawn(four_by_four(selection), "streams")
    between = picture[64 + 32, 2 * 64]  # halfway from token 5 to token 6
    assert np.abs(between[:3] / 255 - LIGHT.geometric[:3]).max() < 0.2
    assert not cell(picture, 1, 2)[:10].any()


def test_a_run_without_streams_shows_its_retention_under_that_name() -> None:
    picture = drawn(four_by_four(one_of_each()), "streams")
    assert not cell(picture, 2, 2).any()
    assert cell(picture, 0, 0)[..., 3].min() == 204


def test_the_difference_of_retention_counts_merged_tokens_half() -> None:
    whole, part = four_by_four(Selection.prune(16, np.arange(16))), four_by_four(one_of_each())
    change = change_of(part, Look("difference", against=whole, compared="retention"))
    assert change is not None
    assert change.tolist() == [-0.5 if token == 6 else 0.0 if token in (5, 10) else -1.0 for token in range(16)]
    picture = drawn(part, "difference", against=whole, compared="retention")
    assert np.abs(cell(picture, 0, 0)[9, 9, :3] / 255 - LIGHT.diverging[0]).max() < 0.01
    assert cell(picture, 2, 2)[9, 9, 3] / 255 == pytest.approx(0.1, abs=0.003)


def test_the_difference_of_attention_takes_absent_tokens_as_zero() -> None:
    values = [np.nan] * 16
    values[3] = 0.5
    other = [0.0] * 16
    other[2] = 0.125
    run, first = (four_by_four(one_of_each(), attention=attention) for attention in (values, other))
    change = change_of(run, Look("difference", against=first))
    assert change is not None
    assert change[3] == 1.0
    assert change[2] == -0.5
    assert change[0] == 0.0


def test_runs_on_other_grids_have_no_difference() -> None:
    run, other = four_by_four(one_of_each()), four_by_four(Selection.prune(64, [1]))
    assert change_of(run, Look("difference", against=other, compared="retention")) is None
    assert not drawn(run, "difference", against=other, compared="retention").any()


def test_as_many_tokens_elsewhere_on_the_image_have_no_difference() -> None:
    run = four_by_four(one_of_each())
    grid = TokenGrid.single(4, 4, (20, 20)).placed((0.0, 0.0, 20.0, 20.0), run.grid.image_size)
    moved = replace(run, grid=grid)
    assert len(moved) == len(run)
    assert change_of(run, Look("difference", against=moved, compared="retention")) is None
    assert change_of(run, Look("difference", against=run, compared="retention")) is not None


def test_a_georeferenced_tile_shows_each_token_where_the_projection_puts_it(tmp_path: Path) -> None:
    path = tmp_path / "place.tif"
    write_geotiff(
        path, np.zeros((400, 300, 3), dtype=np.uint8), "EPSG:32632", (10.0, 0.0, 300_000.0, 0.0, -10.0, 5_300_000.0)
    )
    image = open_image(path)
    dropped = Opened.of(make_run(1, (8, 6), "uniform_grid@0.5", image=image))
    placement = place_image(image, path)
    assert placement.place is not None
    west, south, east, north = placement.place.bounds_lonlat
    zoom = placement.zoom
    x = int(((west + east) / 2 / 360 + 0.5) * 2**zoom)
    y = int((0.5 - np.arcsinh(np.tan(np.radians((south + north) / 2))) / (2 * np.pi)) * 2**zoom)
    picture = paint(dropped, Look("retention"), placement.view(zoom, x, y), LIGHT)
    rng = np.random.default_rng(0)
    for row, col in rng.integers(0, TILE, (200, 2)):
        longitude = ((x * TILE + col + 0.5) / (TILE * 2**zoom) - 0.5) * 360
        latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y * TILE + row + 0.5) / (TILE * 2**zoom)))))
        (px, py), *_ = lonlat_to_pixel(describe(path), [(longitude, latitude)])
        if not (3 < px % 50 < 47 and 3 < py % 50 < 47 and 0 < px < 300 and 0 < py < 400):
            continue  # on a line between cells, or beside the image
        token = int(py // 50) * 6 + int(px // 50)
        assert (picture[row, col, 3] > 0) == (dropped.fate[token] == 2)


def test_the_margin_is_wider_than_anything_drawn_over_an_edge() -> None:
    assert MARGIN >= 7.5 + 1.4
