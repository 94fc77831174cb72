"""A comparison as a folder: plain JSON, arrays without pickle, and the image's bytes. Samples travel in this form.

comparison.json   what was asked, the panes, and each run without its arrays
arrays.npz        the runs' arrays, each once, named by their digests
image             the image's bytes as received, where they were kept
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.run import Run
from compression.errors import CompressionError
from storage.arrays import pack
from storage.comparisons import comparison_from_json, comparison_json
from storage.errors import AssetMissing, BundleInvalid, ComparisonNotFound, NotStorable
from storage.faults import translate_os
from storage.records import Comparison
from storage.rows import json_text
from storage.store import Store

FORMAT = "keepmap comparison 1"
DOCUMENT, ARRAYS, IMAGE = "comparison.json", "arrays.npz", "image"


def export_comparison(store: Store, comparison_id: str, folder: Path) -> Path:
    """Write a comparison, its runs and its image into a folder, and return it. The same runs give the same bytes.

    Who owned it is not written, nor ids of failures; their reasons are.

    Raises:
        ComparisonNotFound: there is none.
        StoreFull, StoreReadOnly: the folder cannot take it.
    """
    comparison = store.comparison(comparison_id)
    runs = [store.get(pane.run) for pane in comparison.panes if pane.run is not None]
    arrays = {name: pack(array).digest for run in runs for name, array in _named(run).items()}
    by_digest = {arrays[name]: array for run in runs for name, array in _named(run).items()}
    panes = tuple(replace(pane, failure=None) for pane in comparison.panes)
    document = {
        "format": FORMAT,
        "comparison": comparison_json(replace(comparison, owner="", is_sample=False, panes=panes)),
        "runs": [
            {
                "request": run.request.digest,
                "record": json.loads(json_text(run.to_json())),
                "arrays": {name: arrays[run.id, name] for name in run.arrays()},
            }
            for run in runs
        ],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / IMAGE).write_bytes(store.image_path(comparison.image.digest).read_bytes())
        except AssetMissing:
            (folder / IMAGE).unlink(missing_ok=True)
        with (folder / ARRAYS).open("wb") as file:
            np.savez_compressed(file, **dict(sorted(by_digest.items())))  # type: ignore[arg-type]
        # Written last: a folder without it is not a bundle.
        (folder / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise translate_os(error, folder) from error
    return folder


def import_comparison(store: Store, folder: Path, is_sample: bool = True, owner: str = "") -> str:
    """Store the comparison that a folder holds and return its id. One that is stored already is left as it is.

    Args:
        is_sample: Whether everyone may see it.
        owner: Whose it is otherwise.

    Raises:
        BundleInvalid: it is not an exported comparison, or something in it does not match its digest.
    """
    comparison, records = _read_document(folder)
    try:
        return store.comparison(comparison.id).id
    except ComparisonNotFound:
        pass
    runs = _read_runs(folder, records)
    if {pane.run for pane in comparison.panes if pane.run is not None} != {run.id for run in runs}:
        raise BundleInvalid(f"{folder} does not hold the runs of its own panes; export the comparison again")
    image = folder / IMAGE
    if image.is_file():
        with image.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != comparison.image.digest:
                raise _changed(folder, IMAGE)
        store.put_image(image)
    for run in runs:
        store.add(run, owner, is_sample=is_sample)
    return store.add_comparison(replace(comparison, is_sample=is_sample), owner)


def _named(run: Run) -> dict[tuple[str, str], NDArray[Any]]:
    return {(run.id, name): array for name, array in run.arrays().items()}


def _read_document(folder: Path) -> tuple[Comparison, list[dict[str, Any]]]:
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise BundleInvalid(f"{folder} has the format {document['format']!r}, this version reads {FORMAT!r}")
        return comparison_from_json(document["comparison"]), list(document["runs"])
    except OSError as error:
        raise BundleInvalid(f"{folder} is not an exported comparison: it has no readable {DOCUMENT}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleInvalid(
            f"{folder / DOCUMENT} does not describe a comparison ({error!r}); export it again"
        ) from error


def _read_runs(folder: Path, records: list[dict[str, Any]]) -> list[Run]:
    runs = []
    try:
        with (folder / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for record in records:
                arrays = {name: stored[digest] for name, digest in record["arrays"].items()}
                if any(pack(array).digest != record["arrays"][name] for name, array in arrays.items()):
                    raise _changed(folder, ARRAYS)
                run = Run.from_json(record["record"], arrays)
                if run.request.digest != record["request"]:
                    raise _changed(folder, DOCUMENT)
                runs.append(run)
    except OSError as error:
        raise BundleInvalid(f"{folder / ARRAYS} cannot be read ({error}); export the comparison again") from error
    except (KeyError, TypeError, ValueError, IndexError, EOFError) as error:
        raise BundleInvalid(f"{folder} does not describe its runs ({error!r}); export the comparison again") from error
    except (zipfile.BadZipFile, zlib.error, CompressionError, NotStorable) as error:
        raise BundleInvalid(f"{folder} is damaged ({error}); export the comparison again") from error
    return runs


def _changed(folder: Path, name: str) -> BundleInvalid:
    return BundleInvalid(f"{folder / name} does not match its digest; it was changed or damaged, so export it again")
