from __future__ import annotations

import hashlib
import os
import resource
import shutil
from dataclasses import replace

import pytest

from storage import AssetMissing, NotStorable, QuotaExceeded, StoreFull, StoreReadOnly, open_store
from tests.factories import make_comparison, make_image_file, make_image_ref, make_run


@pytest.fixture
def picture(tmp_path):
    return make_image_file(tmp_path)


def kept(store):
    """Names in the folder of the images."""
    return sorted(file.name for file in store.images.folder.iterdir()) if store.images.folder.exists() else []


def test_the_bytes_of_an_image_are_kept_as_received_under_their_digest(store, picture):
    digest = store.put_image(picture)
    assert digest == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert store.image_path(digest).name == digest
    assert store.image_path(digest).read_bytes() == picture.read_bytes()
    assert store.image_bytes() == picture.stat().st_size


def test_the_same_bytes_are_kept_once_whatever_the_file_is_called(store, picture, tmp_path):
    again = tmp_path / "..%2f..%2fetc; rm -rf .png"
    shutil.copy(picture, again)
    assert store.put_image(picture) == store.put_image(again)
    assert len(kept(store)) == 1


def test_images_lie_beside_the_store(url, tmp_path, picture):
    with open_store(url) as store:
        assert store.image_path(store.put_image(picture)).parent == tmp_path / "keepmap.db.assets"


def test_images_lie_where_the_environment_or_the_argument_says(url, tmp_path, picture, monkeypatch):
    monkeypatch.setenv("KEEPMAP_ASSETS", str(tmp_path / "by name"))
    with open_store(url) as store:
        assert store.image_path(store.put_image(picture)).parent == tmp_path / "by name"
    with open_store(url, assets=tmp_path / "by argument") as store:
        assert store.image_path(store.put_image(picture)).parent == tmp_path / "by argument"


def test_the_folder_of_a_store_in_memory_goes_with_it(picture):
    with open_store("sqlite:///:memory:") as store:
        folder = store.image_path(store.put_image(picture)).parent
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("digest", ["", "..", "../keepmap.db", "/etc/passwd", "0" * 64, "Z" * 64, "0" * 63 + "\x00"])
def test_a_name_that_is_no_kept_digest_is_missing(store, picture, digest):
    store.put_image(picture)
    with pytest.raises(AssetMissing, match="is not kept"):
        store.image_path(digest)


def test_a_link_in_the_folder_is_not_followed(file_store, picture, tmp_path):
    digest = file_store.put_image(picture)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = file_store.image_path(digest)
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(AssetMissing):
        file_store.image_path(digest)
    file_store.put_image(picture)
    assert file_store.image_path(digest).read_bytes() == picture.read_bytes()
    assert secret.read_text() == "secret"


def test_an_image_that_was_cut_short_on_the_disk_is_written_again(file_store, picture):
    path = file_store.image_path(file_store.put_image(picture))
    path.write_bytes(b"half")
    file_store.put_image(picture)
    assert path.read_bytes() == picture.read_bytes()


def test_what_is_not_a_readable_file_is_refused(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, match in (
        ("pipe", "not a regular file"),
        (".", "not a regular file|cannot be read"),
        ("none.png", "cannot be read"),
    ):
        with pytest.raises(NotStorable, match=match):
            store.put_image(tmp_path / name)
    with pytest.raises(NotStorable, match="not a regular file"):
        store.put_image(type(tmp_path)("/dev/zero"))
    assert kept(store) == []


def add_with_image(store, picture, seed=0):
    """One stored run of a picture whose bytes are kept."""
    digest = store.put_image(picture)
    run = make_run(seed, image=make_image_ref(seed, digest=digest))
    store.add(run)
    return run


def test_an_image_goes_with_the_last_run_that_uses_it(store, picture):
    first, second = add_with_image(store, picture, 0), add_with_image(store, picture, 1)
    store.delete(first.id)
    assert len(kept(store)) == 1
    store.delete(second.id)
    assert kept(store) == []
    assert store.image_bytes() == 0


def test_an_image_stays_while_a_comparison_uses_it(store, picture):
    digest = store.put_image(picture)
    comparison, runs = make_comparison(image=make_image_ref(digest=digest))
    for run in runs:
        store.add(run)
    store.add_comparison(comparison)
    alone = make_run(5, image=comparison.image)
    store.add(alone)
    store.delete(alone.id)
    assert kept(store) == [digest]
    store.delete_comparison(comparison.id)
    assert kept(store) == []


def test_an_image_that_waits_for_its_first_run_is_not_deleted_under_it(store, picture):
    old = add_with_image(store, picture)
    digest = store.put_image(picture)  # another visitor uploads the same picture
    store.delete(old.id)
    assert kept(store) == [digest]
    assert store.release_images(awaited_seconds=3600) == 0
    assert store.release_images(awaited_seconds=-60) == 1
    assert kept(store) == []


def test_leftovers_of_interrupted_writes_are_released(file_store, picture):
    used = add_with_image(file_store, picture)
    folder = file_store.images.folder
    for name in ("tmp123.part", "a" * 64):
        (folder / name).write_bytes(b"left over")
    (folder / "notes.txt").write_text("someone's own file")
    assert file_store.release_images(awaited_seconds=-60) == 2
    assert kept(file_store) == sorted([used.request.image.digest, "notes.txt"])


def test_a_run_is_deleted_also_where_the_file_of_its_image_cannot_be(open_folder, as_ordinary_user):
    with as_ordinary_user(), open_store(f"sqlite:///{open_folder / 'keepmap.db'}") as store:
        run = add_with_image(store, make_image_file(open_folder))
        store.images.folder.chmod(0o555)
        store.delete(run.id)
        assert (store.count(), store.image_bytes(), len(kept(store))) == (0, 0, 1)
        store.images.folder.chmod(0o755)
        assert store.release_images() == 1


def test_a_folder_that_cannot_be_written_takes_no_image(open_folder, as_ordinary_user, picture):
    shutil.copy(picture, open_folder)
    with as_ordinary_user(), open_store(f"sqlite:///{open_folder / 'keepmap.db'}") as store:
        store.images.folder.mkdir(mode=0o555)
        with pytest.raises(
            StoreReadOnly, match="keepmap.db.assets cannot be written .Permission denied.; make it writable"
        ):
            store.put_image(open_folder / picture.name)
        assert store.image_bytes() == 0


def test_a_quota_is_kept_with_a_clear_message(url, tmp_path):
    first, second = make_image_file(tmp_path, 0), make_image_file(tmp_path, 1)
    with open_store(url, quota_bytes=first.stat().st_size + 10) as store:
        run = add_with_image(store, first)
        with pytest.raises(QuotaExceeded, match=r"the image takes [\d,]+ bytes, and of [\d,]+ there are 10 left"):
            store.put_image(second)
        assert kept(store) == [run.request.image.digest]
        assert store.put_image(first) == run.request.image.digest


def test_images_that_nothing_used_for_an_hour_make_room(url, tmp_path):
    first, second = make_image_file(tmp_path, 0), make_image_file(tmp_path, 1)
    with open_store(url, quota_bytes=first.stat().st_size + 10) as store:
        old = store.put_image(first)
        with store.database.writing() as connection:
            connection.exec_driver_sql("UPDATE images SET received_utc = '2020-01-01T00:00:00Z'")
        assert kept(store) == [old]
        assert kept(store) != [store.put_image(second)] == kept(store)


def test_a_disk_that_is_full_leaves_no_half_image(file_store, picture):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert picture.stat().st_size > 512
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(StoreFull, match="has no room left"):
            file_store.put_image(picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept(file_store) == []
    assert file_store.image_bytes() == 0
    file_store.put_image(picture)


def test_a_store_opened_for_reading_takes_no_image(url, picture):
    with open_store(url) as store:
        digest = store.put_image(picture)
    with open_store(url, read_only=True) as store:
        assert store.image_path(digest).read_bytes() == picture.read_bytes()
        with pytest.raises(StoreReadOnly, match="opened for reading only, so no image can be kept"):
            store.put_image(picture)


def test_a_run_may_be_stored_without_its_image(store):
    run = make_run()
    store.add(run)
    store.delete(run.id)
    store.add(replace(run, id="e" * 32))
    assert kept(store) == []
