"""What the embedded model still answers under each strategy, per question family.

    python -m tests.benchmarks.accuracy [--per-task 60] [--budgets 0.5,0.25,0.1] [--markdown]

The same held-out scenes and questions for every strategy (never seen in training), so the rows are paired. Shares with
Wilson 95 % intervals; evidence is the mean share of the evidence's patches that were kept or merged into kept ones.
A strategy that cannot reach a budget says "unreachable".
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np
import torch

from analysis.retention import evidence_recall
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.evaluation import held_out_questions
from compression.backends.embedded.questions import FAMILIES
from compression.compressor import Plan
from compression.errors import InvalidBudget
from compression.intervals import wilson_interval
from compression.sight import LOOKS
from compression.strategies import CATALOGUE


class Tally:
    """Right and asked per family, evidence recalls, and the share of tokens kept."""

    def __init__(self) -> None:
        self.right: dict[str, list[bool]] = defaultdict(list)
        self.recall: list[float] = []
        self.retention: list[float] = []


def measured(vlm: VLM, plans: list[Plan], per_task: int) -> dict[str, Tally]:
    """Ask every question under every plan."""
    tallies = {str(plan): Tally() for plan in plans}
    for scene, questions in held_out_questions(per_task):
        tokens = vlm.encode(scene.image, scene.image.shape[:2])
        for question in questions:
            prompt = vlm.prompt(question.text, question.choices)
            for plan in plans:
                told = vlm.generate(tokens, prompt, plan)
                tally = tallies[str(plan)]
                tally.right[question.family].append(told.text == question.answer)
                tally.retention.append(float(np.mean(told.tokens_per_layer)) / len(tokens))
                recall = evidence_recall(told.selection, tokens.grid, question.evidence)
                if recall is not None:
                    tally.recall.append(recall)
    return tallies


def cell(right: list[bool]) -> str:
    """A share with its interval, as "0.93 (0.90 to 0.95)"."""
    low, high = wilson_interval(sum(right), len(right))
    return f"{np.mean(right):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print one row per strategy and budget."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--per-task", type=int, default=60)
    ask.add_argument("--budgets", default="0.5,0.25,0.1")
    ask.add_argument("--markdown", action="store_true")
    options = ask.parse_args()
    torch.set_num_threads(1)
    vlm = load_model("embedded", device="cpu")
    plans, unreachable = [CATALOGUE.plan("identity")], []
    for name in CATALOGUE.names():
        if name == "identity" or CATALOGUE.get(name).info.stage in LOOKS:  # one encoding serves all of these
            continue
        for budget in options.budgets.split(","):
            plan = CATALOGUE.plan(f"{name}@{budget}")
            try:
                vlm.check(plan, vlm.count_tokens((256, 256)))
                plans.append(plan)
            except InvalidBudget:
                unreachable.append(str(plan))
    plans.append(CATALOGUE.plan("dualcomp"))
    start = time.perf_counter()
    tallies = measured(vlm, plans, options.per_task)
    rows = [["strategy", *FAMILIES, "evidence kept", "mean retention"]]
    for plan in plans:
        tally = tallies[str(plan)]
        name = "`dualcomp`, its router chooses" if str(plan) == "dualcomp" else f"`{plan}`"
        rows.append(
            [
                name,
                *(cell(tally.right[family]) for family in FAMILIES),
                f"{np.mean(tally.recall):.2f}",
                f"{np.mean(tally.retention):.3f}",
            ]
        )
    rows += [[f"`{plan}`", *["unreachable"] * (len(FAMILIES) + 2)] for plan in unreachable]
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |" if options.markdown else "  ".join(part.ljust(26) for part in row).rstrip())
        if options.markdown and number == 0:
            print("|" + "---|" * len(row))
    sizes = {family: len(tallies[str(plans[0])].right[family]) for family in FAMILIES}
    print(
        f"\nn = {', '.join(f'{count} {family}' for family, count in sizes.items())}; "
        f"{time.perf_counter() - start:.0f} s; weights {vlm.card.revision[:12]}"
    )


if __name__ == "__main__":
    main()
