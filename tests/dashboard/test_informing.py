"""From stored runs and the benchmark to decompositions: nothing is asked twice, and what cannot be used is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.errors import InvalidInformation
from analysis.imagery import write_geotiff
from analysis.information import Settings
from analysis.pipeline import SYNTHETIC_TAG, Inquiry, open_image
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.drafts import DRAFTERS, Draft
from compression.backends.embedded.regimes import REGIMES
from compression.backends.embedded.scenes import make_scene
from compression.backends.embedded.templates import ANSWERS, sentence
from compression.strategies import CATALOGUE
from dashboard.batch import run_and_store
from dashboard.informing import inform_and_store, passes, regime_askings, stored_askings, training_spectra
from dashboard.settings import Settings as ServerSettings
from storage import InvalidCondition, Store, open_store

FEW = Settings(replicates=100)


@pytest.fixture(scope="module")
def embedded() -> VLM:
    return load_model("embedded", device="cpu")


def _draft(seed: int, task: str) -> Draft | None:
    found = (DRAFTERS[task](make_scene(seed), np.random.default_rng(at)) for at in range(20))
    return next((one for one in found if one), None)


@pytest.fixture(scope="module")
def asked(embedded: VLM, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one question about each of four scenes under two strategies, and one of another template."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ServerSettings(db=f"sqlite:///{folder / 'k.db'}", repeats=1)
    drafts = [(seed, "region", _draft(seed, "region")) for seed in range(20, 60)]
    chosen = [one for one in drafts if one[2]][:4]
    for seed, task, draft in (*chosen, (chosen[0][0], "dominant", _draft(chosen[0][0], "dominant"))):
        scene = make_scene(seed)
        assert draft is not None
        path = folder / f"{seed}.tif"
        write_geotiff(path, scene.image, scene.crs, scene.transform, tags={SYNTHETIC_TAG: f"seed {seed}"})
        inquiry = Inquiry(path, open_image(path), sentence(draft.text), ANSWERS[task], draft.answer, task=task)
        plans = [CATALOGUE.plan(text) for text in ("uniform_grid@0.25", "identity@1.0")]
        run_and_store(inquiry, plans, embedded, settings, seed=0, record=())
    return settings.db


def test_every_regime_is_decomposed_once_and_found_again(embedded):
    with open_store("sqlite:///:memory:") as store:
        askings = regime_askings(embedded, 3, [CATALOGUE.plan("identity@1.0"), CATALOGUE.plan("divprune@0.25")])
        told: list[str] = []
        first = inform_and_store(store, embedded, askings, FEW, progress=lambda line, _share: told.append(line))
        assert len(first) == 2 * len(REGIMES)
        assert sum(part.startswith("Asked") for part in told) > 0
        assert passes(askings, FEW) == 2 * len(REGIMES) * 9
        told.clear()
        again = inform_and_store(store, embedded, askings, FEW, progress=lambda line, _share: told.append(line))
        assert again == first
        assert told == [], "what is stored is not asked again"
        assert all(one.differences for one in first if one.strategy == "divprune@0.25")
        assert not any(one.differences for one in first if one.strategy == "identity@1.0")


def test_stored_runs_are_asked_again_per_strategy_with_the_full_model_first(embedded, asked):
    with open_store(asked) as store:
        full, grid = stored_askings(store, embedded)
        assert [str(one.plan) for one in (full, grid)] == ["identity@1.0", "uniform_grid@0.25"]
        assert len(full.samples) == len(grid.samples) == 4
        assert full.notes == ("Left out of identity@1.0: 1 without another question with the same choices.",)
        spectra = inform_and_store(store, embedded, [full, grid], FEW)
    assert [(one.strategy, one.task, one.samples, one.n) for one in spectra] == [
        ("identity@1.0", "region", 4, 16),
        ("uniform_grid@0.25", "region", 4, 16),
    ]
    assert spectra[1].reference == spectra[0].id
    assert spectra[0].accuracy is not None


def test_a_condition_chooses_among_the_runs(embedded, asked):
    with open_store(asked) as store:
        (only,) = stored_askings(store, embedded, "strategy_name = 'uniform_grid' AND task = 'region'")
        assert str(only.plan) == "uniform_grid@0.25"
        assert only.notes == ()


@pytest.mark.parametrize("where", ["nonsense = 1", "strategy = 'identity", "1); DROP TABLE runs; --", "x ="])
def test_a_condition_that_is_none_is_refused_and_changes_nothing(embedded, asked, where):
    with open_store(asked) as store:
        before = store.count()
        with pytest.raises(InvalidCondition, match="the condition is not one over the columns of v_runs"):
            stored_askings(store, embedded, where)
        assert store.count() == before


def test_a_store_without_fitting_runs_says_what_to_do(embedded, asked):
    with open_store("sqlite:///:memory:") as store, pytest.raises(InvalidInformation, match="keepmap pid --regimes"):
        stored_askings(store, embedded)
    with open_store(asked) as store, pytest.raises(InvalidInformation, match="0 stored runs of embedded"):
        stored_askings(store, embedded, "model = 'other'")


def test_what_encodes_the_image_itself_is_left_out_and_said(embedded, asked, tmp_path: Path):
    with open_store(asked) as source, open_store(f"sqlite:///{tmp_path / 'k.db'}") as copy:
        for at, summary in enumerate(source.find(strategy="uniform_grid")):
            run = source.get(summary.run)
            copy.put_image(source.image_path(summary.image))
            copy.add(run)
            copy.add(replace(run, id=f"{at:032x}", request=replace(run.request, strategy="downsample@0.25")))
        (only,) = stored_askings(copy, embedded)
        assert str(only.plan) == "uniform_grid@0.25"
        assert any(note.startswith("Left out: downsample@0.25; information is estimated on one") for note in only.notes)
    with pytest.raises(InvalidInformation, match="tome@0.5 is not offered: information is estimated on one encoding"):
        regime_askings(embedded, 2, [CATALOGUE.plan("tome@0.5")])


def test_an_image_that_is_gone_is_named(embedded, asked, tmp_path: Path):
    with open_store(asked) as source, open_store(f"sqlite:///{tmp_path / 'k.db'}") as copy:
        for summary in source.find():
            path = source.image_path(summary.image)
            copy.put_image(path)
            copy.add(source.get(summary.run))
        askings = stored_askings(copy, embedded)
        copy.image_path(askings[0].samples[0].picture).unlink()
        with pytest.raises(InvalidInformation, match="an image of the stored runs is not kept any more"):
            inform_and_store(copy, embedded, askings, FEW)
        assert stored_spectra(copy) == []


def stored_spectra(store: Store) -> list[str]:
    return [one.id for one in store.find_spectra()]


def test_the_training_curve_needs_no_training(embedded):
    curves = training_spectra(embedded, FEW)
    assert len(curves) == len(REGIMES)
    for moments in curves:
        steps = [one.checkpoint for one in moments]
        assert len(steps) == 8
        assert steps == sorted(steps)
        assert {one.method.intervention for one in moments} == {"mean"}
    last = {regime: moments[-1] for regime, moments in zip(REGIMES, curves, strict=True)}
    assert last["question"].dominant == "unique_language"
    assert last["both"].dominant == "synergy"


@pytest.mark.parametrize("count", [0, 1])
def test_the_benchmark_needs_two_pictures_and_the_embedded_model(embedded, count):
    with pytest.raises(InvalidInformation, match=f"at least 2 pictures, got {count}"):
        regime_askings(embedded, count, [])
