"""The comparisons that come with Keepmap: the first thing that a visitor sees, before anything is asked.

`python -m dashboard.bundled` makes them anew from the sample scenes and the embedded model: real runs of the machine
that made them. `dashboard.samples.add_bundles` puts them into a store when the dashboard opens it for the first time.
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
from dashboard.samples import BUNDLES, Samples
from storage import Comparison, Pane, export_comparison, open_store

log = logging.getLogger(__name__)

STRATEGIES = ("identity@1.0", "dualcomp@0.25", "uniform_grid@0.25")
SHOWN = (("corner", 6), ("dir", 6))
"""Task and scene of each bundle, the first screen last: a store lists the newest first. One shows what saliency is good
for and the grid is not, the other the reverse."""
REPEATS = 7


def write_bundled(folder: Path = BUNDLES) -> None:
    """Run the sample comparisons and replace the bundles by them."""
    vlm = load_model("embedded", device="cpu")
    plans = [CATALOGUE.plan(text) for text in STRATEGIES]
    with tempfile.TemporaryDirectory() as work, open_store(f"sqlite:///{work}/samples.db") as store:
        samples = Samples(Path(work) / "scenes")
        shutil.rmtree(folder, ignore_errors=True)
        for number, (task, index) in enumerate(SHOWN):
            question = next(one for one in samples[index].questions if one.task == task)
            path = samples.file(index)
            image = open_image(path, name=samples[index].name)
            inquiry = Inquiry(
                path=path,
                image=image,
                question=question.text,
                choices=question.choices,
                expected=question.answer,
                evidence=question.evidence,
                family=question.family,
                task=question.task,
            )
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
