"""The comparisons that come with Keepmap: the first thing that a visitor sees, before anything is asked.

`python -m dashboard.bundled` makes them anew from the sample scenes and the embedded model; they are real runs of the
machine that made them, stored as bundles, and imported into a store when it is opened for the first time.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from analysis.pipeline import Inquiry, compare, open_image
from analysis.run import new_id, utc_now
from compression.backends import load_model
from compression.strategies import CATALOGUE
from dashboard.samples import Samples
from storage import Comparison, Pane, StorageError, Store, export_comparison, import_comparison, open_store

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "assets" / "samples"
STRATEGIES = ("identity@1.0", "dualcomp@0.25", "uniform_grid@0.25")
SHOWN = (("corner", 6), ("dir", 6))
"""Task and scene of each bundle, the first screen last: a store lists the newest first. One shows what saliency is good
for and the grid is not, the other the reverse."""
REPEATS = 7


def import_bundled(store: Store, folder: Path = FOLDER) -> int:
    """Put the bundled comparisons into a store that does not have them yet; returns how many there are.

    A store that can only be read is left as it is, and a bundle that cannot be read is logged and left out: neither may
    keep the dashboard from opening.
    """
    if store.is_read_only or not folder.is_dir():
        return 0
    done = 0
    for bundle in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            import_comparison(store, bundle, is_sample=True)
            done += 1
        except StorageError as error:
            log.warning("the sample comparison %s was left out: %s", bundle.name, error)
    return done


def write_bundled(folder: Path = FOLDER) -> None:
    """Run the sample comparisons and replace the bundles by them."""
    vlm = load_model("embedded", device="cpu")
    plans = [CATALOGUE.plan(text) for text in STRATEGIES]
    with tempfile.TemporaryDirectory() as work, open_store(f"sqlite:///{work}/samples.db") as store:
        samples = Samples(Path(work) / "scenes")
        shutil.rmtree(folder, ignore_errors=True)
        for number, (task, index) in enumerate(SHOWN):
            question = next(one for one in samples[index].questions if one.task == task)
            path = samples.file(index)
            inquiry = Inquiry(
                path, open_image(path), question.text, question.choices, question.answer, question.evidence,
                question.family, question.task,
            )  # fmt: skip
            identity = new_id()
            store.put_image(path)
            panes = []
            for outcome in compare(inquiry, plans, vlm, repeats=REPEATS, comparison=identity):
                if outcome.run is None:
                    raise RuntimeError(f"{outcome.strategy} gave no run: {outcome.reason}")
                store.add(outcome.run)
                panes.append(Pane(outcome.strategy, run=outcome.run.id, state="done"))
                log.info("%s %s: %s", question.text, outcome.strategy, outcome.run.answer.text)
            store.add_comparison(
                Comparison(
                    id=identity,
                    created_utc=utc_now(),
                    image=inquiry.image,
                    question=question.text,
                    choices=question.choices,
                    expected=question.answer,
                    evidence=inquiry.evidence,
                    family=question.family,
                    task=question.task,
                    model=vlm.card.name,
                    panes=tuple(panes),
                )
            )
            export_comparison(store, identity, folder / f"{number + 1}-{task}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_bundled()
