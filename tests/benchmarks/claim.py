"""DualComp's claim, put to the test: a router's mixture of two streams beats each stream and other methods.

    python -m tests.benchmarks.claim [--scenes 120] [--size 1024] [--variants] [--markdown]

`dualcomp` answers every question at the lambda and the ratio that its router chooses. All others then answer the same
questions at its mean budget, spent the same for every question. A row's difference is dualcomp's share of right answers
less its own, paired by question; the 95 % interval is a percentile bootstrap over scenes, whose questions are not
independent. `--variants` changes one reconstructed constant at a time.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from compression.backends.embedded.backend import CHECKPOINT
from compression.backends.embedded.evaluation import FIRST_SCENE_SEED
from compression.backends.embedded.questions import FAMILIES, REGIME_TASKS, TASKS, Question, ask
from compression.backends.embedded.reading import Reader
from compression.backends.embedded.scenes import make_scene
from compression.strategies import CATALOGUE
from compression.strategies.dualcomp import rule_ratio, rule_router
from compression.tokens import VisualTokens

SCENES = FIRST_SCENE_SEED + 50_000
"""Apart from the scenes of the model card."""
RIVALS = ("dualcomp:lam=0", "dualcomp:lam=1", "visionzip", "divprune", "geollava8k", "uniform_grid")
VARIANTS = (
    "dualcomp:scale=false",
    "dualcomp:tau0=0.5",
    "dualcomp:tau0=0.9",
    "dualcomp:theta0=1",
    "dualcomp:theta0=16",
    "dualcomp:per=image",
    "dualcomp:lam=0.2",
    "dualcomp:lam=0.5",
    "dualcomp:lam=0.8",
    "dualcomp:router=rule",
)


def asked_about(seed: int, size: int) -> list[Question]:
    """Questions of all tasks about one scene."""
    tasks = [task for task in TASKS if task not in REGIME_TASKS]
    return ask(make_scene(seed, size), np.random.default_rng((seed, 41)), 24, tasks=tasks)


def right(
    reader: Reader, tokens: VisualTokens, strategy: str, budgets: Sequence[int], asked: Sequence[Question]
) -> list[bool]:
    """Which questions are answered right when each is compressed with its own budget."""
    groups: dict[tuple[str, int, float], list[int]] = defaultdict(list)
    reads_question = strategy.startswith("dualcomp") and "lam=" not in strategy
    for place, (question, budget) in enumerate(zip(asked, budgets, strict=True)):
        # Two digits of lambda, so that questions of one scene share selections.
        if reads_question:
            lam = route_of(reader, strategy, question.text)[0]
            joint = strategy + ("," if ":" in strategy else ":") + f"lam={lam:.2f}"
            groups[joint, budget, lam].append(place)
        else:
            groups[strategy, budget, 0.0].append(place)
    found = [False] * len(asked)
    for (name, budget, _), places in groups.items():
        prefix = reader.read(tokens, CATALOGUE.plan(f"{name}@{budget}"))
        for place, said in zip(places, reader.answers(prefix, [asked[one].text for one in places]), strict=True):
            found[place] = said == asked[place].answer
    return found


def route_of(reader: Reader, strategy: str, text: str) -> tuple[float, float]:
    """Lambda and rho of a question, to two digits."""
    if "router=rule" in strategy:
        lam = rule_router(text)[0]
        return lam, rule_ratio(lam)
    route = reader.vlm.route(text)
    return round(route.lam, 2), float(f"{route.rho:.2g}")


def interval(differences: Sequence[np.ndarray], rounds: int = 4000) -> tuple[float, float, float]:
    """Mean over all questions and its 95 % percentile interval over scenes, drawn with replacement."""
    sums = np.array([part.sum() for part in differences])
    sizes = np.array([len(part) for part in differences])
    drawn = np.random.default_rng(0).integers(0, len(sums), (rounds, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(sums.sum() / sizes.sum()), float(low), float(high)


@torch.inference_mode()
def main() -> None:
    """Print one row per rival."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scenes", type=int, default=120)
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--variants", action="store_true")
    options.add_argument("--markdown", action="store_true")
    chosen = options.parse_args()
    reader = Reader(CHECKPOINT)
    start = time.perf_counter()
    scenes = [(seed, asked_about(seed, chosen.size)) for seed in range(SCENES, SCENES + chosen.scenes)]
    total = reader.vlm.count_tokens((chosen.size, chosen.size))
    own = [[max(1, round(total * route_of(reader, "dualcomp", one.text)[1])) for one in asked] for _, asked in scenes]
    mean = round(float(np.mean(np.concatenate(own))))
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    rivals = [*RIVALS, *(VARIANTS if chosen.variants else ()), "dualcomp", "identity"]
    for (seed, asked), budgets in zip(scenes, own, strict=True):
        tokens = reader.look(make_scene(seed, chosen.size).image)
        rows["own"].append(np.array(right(reader, tokens, "dualcomp", budgets, asked), float))
        for rival in rivals:
            count = total if rival == "identity" else mean
            rows[rival].append(np.array(right(reader, tokens, rival, [count] * len(asked), asked), float))
    families = [np.array([FAMILIES.index(one.family) for one in asked]) for _, asked in scenes]
    names = {"own": "`dualcomp`, lambda and budget by its router", "dualcomp": "`dualcomp`, lambda by its router"}
    table = [["strategy", "tokens", "all", *FAMILIES, "dualcomp and router less this", "95 % interval"]]
    for name in ["own", *rivals]:
        every = np.concatenate(rows[name])
        shares = [every[np.concatenate(families) == index].mean() for index in range(len(FAMILIES))]
        gap = interval([first - other for first, other in zip(rows["own"], rows[name], strict=True)])
        table.append(
            [
                names.get(name, f"`{name}`"),
                str(total if name == "identity" else mean) + (" on average" if name == "own" else ""),
                f"{every.mean():.3f}",
                *(f"{share:.2f}" for share in shares),
                f"{gap[0]:+.3f}" if name != "own" else "",
                f"{gap[1]:+.3f} to {gap[2]:+.3f}" if name != "own" else "",
            ]
        )
    for number, row in enumerate(table):
        print("| " + " | ".join(row) + " |" if chosen.markdown else "  ".join(part.ljust(24) for part in row).rstrip())
        if chosen.markdown and number == 0:
            print("|" + "---|" * len(row))
    count = sum(len(asked) for _, asked in scenes)
    print(
        f"\n{count} questions about {len(scenes)} scenes of {chosen.size} px, {total} visual tokens; "
        f"{time.perf_counter() - start:.0f} s; weights {reader.vlm.card.revision[:12]}"
    )


if __name__ == "__main__":
    main()
