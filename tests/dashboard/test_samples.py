from __future__ import annotations

from pathlib import Path

import pytest

from analysis.imagery import describe
from analysis.pipeline import open_image
from dashboard.samples import SCENES, Sample, Samples, add_bundles
from storage import open_store
from storage.bundle import export_comparison
from tests.dashboard.page import stored


def test_each_scene_of_the_gallery_has_a_name_of_its_own() -> None:
    names = [Sample(*scene).name for scene in SCENES]
    assert len(set(names)) == len(names)
    assert not any(character.isdigit() for name in names for character in name)


def test_each_scene_comes_with_questions_of_several_tasks_and_known_answers() -> None:
    for scene in SCENES:
        questions = Sample(*scene).questions
        assert len({question.task for question in questions}) == len(questions) >= 6
        assert all(question.answer in question.choices for question in questions)


def test_scenes_of_cells_come_first_and_are_asked_about_their_cells() -> None:
    assert [size for _, size in SCENES] == sorted((size for _, size in SCENES), reverse=True)
    for scene in SCENES:
        tasks = {question.task for question in Sample(*scene).questions}
        assert ("cell" in tasks) == (scene[1] > 256)
        assert "told" not in tasks, "a question that tells its own answer is no example"


def test_a_scene_is_written_once_where_it_is_on_earth_and_declared_synthetic(tmp_path: Path) -> None:
    samples = Samples(tmp_path, SCENES[:1])
    file = samples.file(0)
    written = file.stat().st_mtime_ns
    assert samples.file(0).stat().st_mtime_ns == written
    image = open_image(file)
    assert image.is_synthetic
    assert (image.crs, image.transform) == (samples[0].scene.crs, samples[0].scene.transform)
    assert describe(file).size == (1024, 1024)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (Samples(tmp_path / name, SCENES[:1]).file(0) for name in "ab")
    assert first.read_bytes() == second.read_bytes(), "a stored image is found again by its digest"


def test_bundled_comparisons_come_in_once_and_as_samples(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'maker.db'}") as maker:
        export_comparison(maker, stored(maker, tmp_path), tmp_path / "bundles" / "first")
    with open_store(f"sqlite:///{tmp_path / 'k.db'}") as store:
        added = add_bundles(store, tmp_path / "bundles")
        assert [store.comparison(one).is_sample for one in added] == [True]
        assert add_bundles(store, tmp_path / "bundles") == []
        assert add_bundles(store, tmp_path / "nothing") == []


@pytest.mark.parametrize("text", ["", "{}", "no JSON"])
def test_a_bundle_that_does_not_fit_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comparison.json").write_text(text)
    with open_store("sqlite:///:memory:") as store:
        assert add_bundles(store, tmp_path) == []
