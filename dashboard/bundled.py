"""The comparisons that come with Keepmap: the first thing that a visitor sees, before anything is asked.

`python -m dashboard.bundled` makes them anew from the sample scenes and the embedded model: real runs of the machine
that made them. `dashboard.samples.add_bundles` puts them into a store when the dashboard opens it for the first time.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from analysis.pipeline import RECORD_ALL, Inquiry, open_image
from compression.backends import load_model
from compression.strategies import CATALOGUE
from dashboard.batch import run_and_store
from dashboard.samples import BUNDLES, Samples
from dashboard.settings import Settings
from storage import export_comparison, open_store

log = logging.getLogger(__name__)

STRATEGIES = ("identity@1.0", "dualcomp@{count}", "uniform_grid@{count}")
SHOWN = (("dominant", 5, 64), ("dir", 1, 384))
"""Task, scene and budget in visual tokens of each bundle, the first screen last: a store lists the newest first. One
shows what saliency is good for and the grid is not, the other the reverse."""
REPEATS = 7


def write_bundled(folder: Path = BUNDLES) -> None:
    """Run the sample comparisons and replace the bundles by them."""
    vlm = load_model("embedded", device="cpu")
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        settings = Settings(db=f"sqlite:///{work}/samples.db", repeats=REPEATS)
        samples = Samples(Path(work) / "scenes")
        for number, (task, index, count) in enumerate(SHOWN, start=1):
            plans = [CATALOGUE.plan(text.format(count=count)) for text in STRATEGIES]
            question = next(one for one in samples[index].questions if one.task == task)
            path = samples.file(index)
            inquiry = Inquiry(
                path=path,
                image=open_image(path, name=samples[index].name),
                question=question.text,
                choices=question.choices,
                expected=question.answer,
                evidence=question.evidence,
                family=question.family,
                task=question.task,
            )
            outcomes, identity = run_and_store(inquiry, plans, vlm, settings, seed=0, record=RECORD_ALL)
            for outcome in outcomes:
                log.info("%s %s: %s", question.text, outcome.strategy, outcome.run and outcome.run.answer.text)
            with open_store(settings.db) as store:
                export_comparison(store, identity, folder / f"{number}-{task}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_bundled()
