from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from storage import BundleInvalid, Pane, export_comparison, import_comparison, open_store
from storage.arrays import pack
from tests.factories import make_comparison, make_image_file, make_image_ref


@pytest.fixture
def exported(tmp_path):
    """A folder with a comparison of three strategies and its image, and what is in it."""
    picture = make_image_file(tmp_path)
    with open_store("sqlite://") as source:
        comparison, runs = make_comparison(image=make_image_ref(digest=source.put_image(picture)))
        for run in runs:
            source.add(run, "ann")
        failure = source.fail({}, "encode", "no memory")
        failed = Pane("fastv@0.1", failure=failure, reason="no memory", state="failed")
        comparison = replace(comparison, panes=(*comparison.panes, failed))
        source.add_comparison(comparison, "ann")
        folder = export_comparison(source, comparison.id, tmp_path / "bundle")
    return folder, comparison, runs


def test_an_exported_comparison_comes_back_with_its_runs_and_image(store, exported):
    folder, comparison, runs = exported
    assert import_comparison(store, folder) == comparison.id
    panes = (*comparison.panes[:3], replace(comparison.panes[3], failure=None))
    assert store.comparison(comparison.id) == replace(comparison, panes=panes, is_sample=True)
    for run in runs:
        assert store.get(run.id) == run
        assert store.summary(run.id).is_sample
    assert store.image_path(comparison.image.digest).read_bytes() == (folder / "image").read_bytes()


def test_importing_twice_stores_once(store, exported):
    folder, comparison, runs = exported
    assert import_comparison(store, folder) == import_comparison(store, folder) == comparison.id
    assert store.count() == len(runs)
    assert store.count_comparisons() == 1


def test_a_sample_is_seen_by_all_and_another_import_by_its_owner(store, exported):
    folder, comparison, _ = exported
    import_comparison(store, folder, is_sample=False, owner="bob")
    assert store.comparisons("ann") == []
    assert [found.owner for found in store.comparisons("bob")] == ["bob"]
    assert {found.owner for found in store.find(comparison=comparison.id)} == {"bob"}
    store.delete_comparison(comparison.id, owner="bob")
    import_comparison(store, folder)
    assert len(store.comparisons("ann")) == 1


def test_a_folder_names_no_owner_and_no_path(exported):
    folder, _, _ = exported
    document = (folder / "comparison.json").read_text()
    assert '"ann"' not in document
    assert str(folder.parent) not in document
    assert sorted(file.name for file in folder.iterdir()) == ["arrays.npz", "comparison.json", "image"]


def test_the_same_comparison_gives_the_same_bytes(store, exported, tmp_path):
    folder, comparison, _ = exported
    import_comparison(store, folder)
    again = export_comparison(store, comparison.id, tmp_path / "again")
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_a_comparison_whose_image_is_not_kept_travels_without_it(store, tmp_path):
    comparison, runs = make_comparison()
    with open_store("sqlite://") as source:
        for run in runs:
            source.add(run)
        source.add_comparison(comparison)
        folder = export_comparison(source, comparison.id, tmp_path / "bundle")
    assert not (folder / "image").exists()
    import_comparison(store, folder)
    assert store.get(runs[0].id) == runs[0]


def test_arrays_that_runs_share_are_written_once(store, tmp_path):
    comparison, (run, *_) = make_comparison(strategies=("identity@1.0",))
    twin = replace(run, id="f" * 32)
    for each in (run, twin):
        store.add(each)
    panes = (comparison.panes[0], replace(comparison.panes[0], run=twin.id))
    store.add_comparison(replace(comparison, panes=panes))
    folder = export_comparison(store, comparison.id, tmp_path / "bundle")
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {pack(array).digest for array in run.arrays().values()}


def edited(folder, change):
    """Write comparison.json anew after `change` has had it."""
    document = json.loads((folder / "comparison.json").read_text())
    change(document)
    (folder / "comparison.json").write_text(json.dumps(document))


def swap_arrays(folder):
    with np.load(folder / "arrays.npz") as stored:
        arrays = dict(stored)
    first, second, *_ = arrays
    arrays[first], arrays[second] = arrays[second], arrays[first]
    np.savez_compressed(folder / "arrays.npz", **arrays)


def pickled_arrays(folder):
    with np.load(folder / "arrays.npz") as stored:
        names = stored.files
    np.savez(folder / "arrays.npz", **{name: np.array([{}], dtype=object) for name in names})


DAMAGE = {
    "no folder": (shutil.rmtree, "has no readable comparison.json"),
    "no document": (lambda folder: (folder / "comparison.json").unlink(), "has no readable comparison.json"),
    "not JSON": (lambda folder: (folder / "comparison.json").write_text("{"), "does not describe a comparison"),
    "not text": (
        lambda folder: (folder / "comparison.json").write_bytes(b"\xff\xfe\xff"),
        "does not describe a comparison",
    ),
    "another JSON": (lambda folder: (folder / "comparison.json").write_text("[1]"), "does not describe a comparison"),
    "another format": (
        lambda folder: edited(folder, lambda document: document.update(format="keepmap comparison 2")),
        "has the format 'keepmap comparison 2', this version reads 'keepmap comparison 1'",
    ),
    "a field too many": (
        lambda folder: edited(folder, lambda document: document["comparison"].update(extra=1)),
        "does not describe a comparison",
    ),
    "a run too few": (
        lambda folder: edited(folder, lambda document: document["runs"].pop()),
        "the runs of its own panes",
    ),
    "another question": (
        lambda folder: edited(folder, lambda document: document["runs"][0]["record"]["request"].update(question="?")),
        "comparison.json does not match its digest",
    ),
    "a record without answer": (
        lambda folder: edited(folder, lambda document: document["runs"][0]["record"].pop("answer")),
        "does not describe its runs",
    ),
    "an unknown array": (
        lambda folder: edited(folder, lambda document: document["runs"][0]["arrays"].update(scores="0" * 64)),
        "does not describe its runs",
    ),
    "no arrays": (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz cannot be read"),
    "arrays that are no archive": (
        lambda folder: (folder / "arrays.npz").write_bytes(b"text"),
        "does not describe its runs",
    ),
    "arrays cut short": (
        lambda folder: (folder / "arrays.npz").write_bytes((folder / "arrays.npz").read_bytes()[:2000]),
        "is damaged",
    ),
    "arrays that were swapped": (swap_arrays, "arrays.npz does not match its digest"),
    "pickles": (pickled_arrays, "does not describe its runs"),
    "another image": (lambda folder: (folder / "image").write_bytes(b"other"), "image does not match its digest"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_folder_that_is_damaged_is_refused_and_leaves_nothing(store, exported, damage, message):
    folder, _, _ = exported
    damage(folder)
    with pytest.raises(BundleInvalid, match=message):
        import_comparison(store, folder)
    assert (store.count(), store.count_comparisons(), store.image_bytes()) == (0, 0, 0)
