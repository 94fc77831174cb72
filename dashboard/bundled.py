"""What comes with Keepmap: the comparisons that a visitor sees first, and the decompositions of the Information tab.

`python -m dashboard.bundled` makes the comparisons anew from the sample scenes and the embedded model, and
`python -m dashboard.bundled --information` the decompositions, in about half an hour on one core: real runs of the
machine that made them. `dashboard.samples` puts them into a store when the dashboard opens it for the first time.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from pathlib import Path

from analysis.information import Settings as Estimation
from analysis.pipeline import RECORD_ALL, Inquiry, open_image
from compression.backends import load_model
from compression.strategies import CATALOGUE
from dashboard.batch import run_and_store
from dashboard.informing import inform_and_store, regime_askings, training_spectra
from dashboard.samples import BUNDLES, INFORMATION, Samples
from dashboard.settings import Settings
from storage import export_comparison, open_store
from storage.bundle import DOCUMENT

log = logging.getLogger(__name__)

STRATEGIES = ("identity@1.0", "dualcomp@{count}", "uniform_grid@{count}")
SHOWN = (("dominant", 5, 64), ("dir", 1, 384))
"""Task, scene and budget in visual tokens of each bundle, the first screen last: a store lists the newest first. One
shows what saliency is good for and the grid is not, the other the reverse."""
REPEATS = 7
PICTURES = 256
INFORMED = (
    "identity@1.0",
    "dualcomp@0.25",
    "dualcomp@0.1",
    "visionzip@0.25",
    "visionzip@0.1",
    "divprune@0.25",
    "divprune@0.1",
    "uniform_grid@0.25",
    "uniform_grid@0.1",
)
"""Strategies of the decompositions; the first is the reference."""
READ_IN_DEPTH = ("identity@1.0", "dualcomp@0.25")
"""Those whose layers come with Keepmap as well."""


def write_bundled(folder: Path = BUNDLES) -> None:
    """Run the sample comparisons and replace the bundles by them."""
    vlm = load_model("embedded", device="cpu")
    for earlier in folder.glob(f"*/{DOCUMENT}"):
        shutil.rmtree(earlier.parent)
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


def write_information(file: Path = INFORMATION, *, pictures: int = PICTURES) -> None:
    """Decompose what the embedded model gets from picture and question in every regime, and along its training."""
    vlm = load_model("embedded", device="cpu")
    plans = [CATALOGUE.plan(text) for text in INFORMED]
    with open_store("sqlite:///:memory:") as store:
        shuffled = inform_and_store(
            store, vlm, regime_askings(vlm, pictures, plans), Estimation(layers=True), progress=log_progress
        )
        mean = inform_and_store(
            store, vlm, regime_askings(vlm, pictures, plans[:1]), Estimation(intervention="mean"), progress=log_progress
        )
    spectra = [one for one in shuffled if one.layer is None or one.strategy in READ_IN_DEPTH] + mean
    spectra += [one for moments in training_spectra(vlm, Estimation()) for one in moments]
    lines = (json.dumps(one.to_json(), separators=(",", ":")) for one in spectra)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def log_progress(message: str, share: float) -> None:
    """One line when a strategy is done."""
    if share >= 1:
        log.info("%s", message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Make anew what comes with Keepmap.")
    parser.add_argument("--information", action="store_true", help="the decompositions instead of the comparisons")
    if parser.parse_args().information:
        write_information()
    else:
        write_bundled()
