"""The router that ships with the embedded model: what it is trained on, and how well it chooses.

lambda is taught from the question's family, rho from the smallest retention on a ladder from which on the model's
answer stays right. Regret is measured on scenes that neither the model nor the router has seen.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from compression.backends.embedded.backend import ROUTER
from compression.backends.embedded.cells import MOST_CELLS
from compression.backends.embedded.pools import FIRST_TRAINING_SEED
from compression.backends.embedded.questions import FAMILIES, TASKS, Question, ask
from compression.backends.embedded.reading import Reader
from compression.backends.embedded.scenes import VIEW, make_scene
from compression.strategies import CATALOGUE
from compression.strategies.dualcomp import LearnedRouter
from compression.tokens import VisualTokens

LAMBDA = dict(zip(FAMILIES, (0.2, 0.8, 0.5), strict=True))
"""What lambda each family is taught: as the rule has it, 0.5 where neither objects nor geometry are asked for."""
LADDER = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
QUANTILE = 0.85
"""The share of questions that the ratio should be enough for: a lost answer weighs more than some tokens."""
TRAINING_SEED, HELD_OUT_SEED = FIRST_TRAINING_SEED + 9_500_000, 700_000
TRAINING_SCENES = {VIEW: 200, MOST_CELLS * VIEW: 24}
HELD_OUT_SCENES = {VIEW: 100, MOST_CELLS * VIEW: 12}
QUESTIONS = {VIEW: 14, MOST_CELLS * VIEW: 30}
STEPS = 1500


@dataclass(frozen=True)
class Need:
    """What one question needed.

    Args:
        question: It.
        scene: Seed and side of its scene.
        rungs: Whether DualComp at the family's lambda answered right, per rung of the ladder.
    """

    question: Question
    scene: tuple[int, int]
    rungs: tuple[bool, ...]

    @property
    def rung(self) -> int | None:
        """The first rung from which on every answer is right; None where the last one is wrong."""
        lowest = None
        for index in reversed(range(len(self.rungs))):
            if not self.rungs[index]:
                break
            lowest = index
        return lowest


@dataclass(frozen=True)
class RouterFigures:
    """How the router does on held-out scenes.

    Attributes:
        parameters: Number of its weights.
        questions: Held-out questions.
        family: Share whose lambda is nearest to the one of their family.
        answerable: Questions that are answered right at the last rung.
        retention: Mean ratio that the router chose.
        needed: Mean ratio that the answerable questions needed, on the ladder.
        lost: Share of the answerable questions that are answered wrong at the router's choice.
        fixed: Share of them answered wrong when each gets the router's mean ratio instead.
    """

    parameters: int
    questions: int
    family: float
    answerable: int
    retention: float
    needed: float
    lost: float
    fixed: float

    @property
    def extra(self) -> float:
        """Mean ratio beyond what was needed."""
        return self.retention - self.needed


def _scenes(first: int, scenes: dict[int, int]) -> Iterator[tuple[int, int]]:
    for size, count in scenes.items():
        for index in range(count):
            yield size, first + index


def _answered(
    reader: Reader, tokens: VisualTokens, lam: float, rho: float, questions: Sequence[Question]
) -> list[bool]:
    """Which questions are answered right behind DualComp at this lambda and ratio."""
    plan = CATALOGUE.plan(f"dualcomp:lam={lam:g}@{max(1, round(rho * len(tokens)))}")
    said = reader.answers(reader.read(tokens, plan), [question.text for question in questions])
    return [answer == question.answer for answer, question in zip(said, questions, strict=True)]


def needs(reader: Reader, first: int, scenes: dict[int, int]) -> list[Need]:
    """Climb the ladder with questions about scenes.

    Args:
        reader: The model.
        first: Seed of the first scene.
        scenes: How many scenes of each size.
    """
    found = []
    for size, seed in _scenes(first, scenes):
        scene = make_scene(seed, size)
        tasks = tuple(task for task in TASKS if task != "told")
        asked = ask(scene, np.random.default_rng((seed, 23)), QUESTIONS[size], tasks=tasks)
        tokens = reader.look(scene.image)
        for family, lam in LAMBDA.items():
            part = [question for question in asked if question.family == family]
            if part:
                rungs = [_answered(reader, tokens, lam, rho, part) for rho in LADDER]
                found += [
                    Need(question, (seed, size), tuple(rung[place] for rung in rungs))
                    for place, question in enumerate(part)
                ]
    return found


def _means(reader: Reader, asked: Sequence[Question]) -> Tensor:
    """The mean word embedding of each question, as the router reads it."""
    vlm = reader.vlm
    return torch.stack([vlm.embed_question(vlm.prompt(question.text)).float().mean(0) for question in asked]).detach()


def fit(reader: Reader, found: Sequence[Need], seed: int = 0) -> LearnedRouter:
    """Train a router on what questions needed: cross-entropy for lambda, the quantile loss on log rho."""
    means = _means(reader, [need.question for need in found])
    lam = torch.tensor([LAMBDA[need.question.family] for need in found])
    rung = torch.tensor([-1 if need.rung is None else need.rung for need in found])
    target = torch.tensor(LADDER)[rung.clamp(min=0)].log()
    known = rung >= 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = LearnedRouter(means.shape[1])
    # Embeddings of a small model are small: the first layer sees them at unit scale, and keeps the factor.
    with torch.no_grad():
        cast(nn.Linear, router.body[0]).weight.div_(means.std())
    optimiser = torch.optim.AdamW(router.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        to_lam, to_rho = router(means)
        rho = (router.rho_min + (1 - router.rho_min) * to_rho.sigmoid()).log()
        short = (target - rho)[known]
        loss = functional.binary_cross_entropy_with_logits(to_lam, lam)
        loss = loss + torch.maximum(QUANTILE * short, (QUANTILE - 1) * short).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return router.eval().requires_grad_(False)


def judge(reader: Reader, router: LearnedRouter, found: Sequence[Need]) -> RouterFigures:
    """Ask again at what the router chooses, and at its mean ratio for all: a router must beat that.

    Args:
        reader: The model.
        router: What is judged.
        found: What `needs` found on scenes that the router was not trained on.
    """
    with torch.no_grad():
        to_lam, to_rho = router(_means(reader, [need.question for need in found]))
    lams = to_lam.sigmoid().tolist()
    rhos = (router.rho_min + (1 - router.rho_min) * to_rho.sigmoid()).tolist()
    families = [min(LAMBDA, key=lambda family: abs(LAMBDA[family] - lam)) for lam in lams]
    answerable = [index for index, need in enumerate(found) if need.rung is not None]
    mean = float(np.mean([rhos[index] for index in answerable]))
    lost = fixed = 0
    for (seed, size), of_scene in groupby(answerable, key=lambda index: found[index].scene):
        tokens = reader.look(make_scene(seed, size).image)
        # Two digits, so that questions of one scene share selections.
        groups: dict[tuple[float, float, bool], list[Question]] = defaultdict(list)
        for index in of_scene:
            lam = round(lams[index], 2)
            groups[lam, float(f"{rhos[index]:.2g}"), True].append(found[index].question)
            groups[lam, mean, False].append(found[index].question)
        for (lam, rho, is_own), questions in groups.items():
            wrong = _answered(reader, tokens, lam, rho, questions).count(False)
            lost, fixed = lost + wrong * is_own, fixed + wrong * (not is_own)
    return RouterFigures(
        parameters=sum(weight.numel() for weight in router.parameters()),
        questions=len(found),
        family=float(np.mean([need.question.family == one for need, one in zip(found, families, strict=True)])),
        answerable=len(answerable),
        retention=mean,
        needed=float(np.mean([LADDER[found[index].rung or 0] for index in answerable])),
        lost=lost / len(answerable),
        fixed=fixed / len(answerable),
    )


def train_router(checkpoint: Path, *, seed: int = 0, say: Callable[[str], None] = print) -> RouterFigures:
    """Train the router of a checkpoint, write it beside the weights, and say how it does on held-out scenes."""
    reader = Reader(checkpoint)
    found = needs(reader, TRAINING_SEED + seed, TRAINING_SCENES)
    say(f"router: {len(found)} questions climbed the ladder")
    router = fit(reader, found, seed)
    figures = judge(reader, router, needs(reader, HELD_OUT_SEED, HELD_OUT_SCENES))
    save_file(router.state_dict(), checkpoint / ROUTER, metadata={"figures": json.dumps(asdict(figures))})
    say(f"router: {figures}")
    return figures
