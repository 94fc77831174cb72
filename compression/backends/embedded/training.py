"""Train the embedded model from scratch: a vision stage with dense labels, then language on frozen features.

The schedule counts steps, never the clock, and every batch is drawn from (seed, step): a run can be repeated exactly,
and an interrupted one continues to the same weights.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from compression.backends.device import choose_device
from compression.backends.embedded.assembly import assemble
from compression.backends.embedded.cells import MOST_CELLS
from compression.backends.embedded.choosing import choose_tokens, places
from compression.backends.embedded.dense import DenseHeads, dense_loss
from compression.backends.embedded.evaluation import evaluate, write_card
from compression.backends.embedded.losses import Language, align_loss, guidance, tapped
from compression.backends.embedded.model import (
    ModelSize,
    new_language_parts,
    new_vision_tower,
    pixel_values,
    save_checkpoint,
)
from compression.backends.embedded.optimiser import MixedPrecision, load_state, save_state, scale_at
from compression.backends.embedded.packing import TEXT_TOKENS, pack
from compression.backends.embedded.pools import SCENES_PER_CHUNK, Pictures, ScenePool, vision_batch
from compression.backends.embedded.questions import LETTERED_SHARE, ask
from compression.backends.embedded.reading import Reader
from compression.backends.embedded.regimes import Posteriors, ask_moments
from compression.backends.embedded.routing import train_router
from compression.backends.embedded.schedule import IMAGES, Reading, Schedule, Tally, reading_at

VISION_VIEWS, ALIGN_VIEWS = 16, 16
QUESTIONS_PER_IMAGE = 18
VISION_SHARE = 0.10
POLISH_SHARE = 0.32
POLISH_RATE, POLISH_LETTERED = 0.5, 0.3
SCENE_REUSE = 2.5
LARGE_SHARE = 0.10
LOG_EVERY = 50
DEFAULT_MINUTES = 100.0
# Tasks that are learnt late count for more.
TASK_WEIGHT = {"dir": 2.0, "count": 1.6, "region": 1.4, "side": 1.4, "surround": 1.5, "cellcover": 1.3, "told": 0.5}
POLISH_WEIGHT = {"count": 3.0, "region": 2.5, "cellcover": 2.0}
Log = Callable[[str], None]


def train(
    output: Path,
    *,
    minutes: float | None = DEFAULT_MINUTES,
    steps: Schedule | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    log: Log = print,
    size: ModelSize | None = None,
    save_every: int = 250,
    exports: int = 6,
    questions_per_task: int = 300,
    stop_after: int | None = None,
) -> None:
    """Train the embedded model and write `output/checkpoint`, an ordinary checkpoint directory.

    Args:
        output: run directory: `checkpoint/`, `state/` (to resume) and `train.log`.
        minutes: time to aim for; turned into steps by a short measurement and written to the log.
        steps: steps per stage, instead of `minutes`; with the same seed it repeats a run.
        seed: of weights, scenes and questions.
        device: auto, cpu or cuda.
        resume: continue the run in `output` with its own seed and steps.
        log: receives one line at a time.
        size: widths and depths; the shipped ones if left out.
        save_every: steps between states to resume from.
        exports: how many complete checkpoints are written along the way.
        questions_per_task: held-out questions for the model card at the end; 0 leaves it out.
        stop_after: end as if interrupted after this many steps of this call; for tests.

    Raises:
        DeviceUnavailable: this machine does not have the device.
        ValueError: if neither minutes nor steps are given, there is nothing to resume, or the output is a file.
    """
    place = torch.device(choose_device(device))
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder to train in")
    output.mkdir(parents=True, exist_ok=True)
    plan_file = output / "state" / "plan.json"
    if resume:
        if not plan_file.exists():
            raise ValueError(f"nothing to resume in {output}: no state/plan.json; start without --resume")
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
        steps, seed, size = Schedule(**plan["steps"]), plan["seed"], ModelSize(**plan["size"])
    else:
        (output / "train.log").unlink(missing_ok=True)
    run = _Run(output, seed, place, size or ModelSize(), log, save_every, exports, stop_after)
    if steps is None:
        if minutes is None or not minutes > 0:
            raise ValueError(f"minutes must be larger than 0, got {minutes}; or give steps")
        steps = run.measure(minutes)
    if not resume:
        plan_file.parent.mkdir(exist_ok=True)
        plan = {"steps": asdict(steps), "seed": seed, "size": asdict(run.size)}
        plan_file.write_text(json.dumps(plan, indent=1), encoding="utf-8")
        for name in ("vision", "language"):
            (output / "state" / f"{name}.safetensors").unlink(missing_ok=True)
    run.say(f"seed {seed}, steps {asdict(steps)}, device {place}, threads {torch.get_num_threads()}")
    if run.vision(steps) and run.language(steps):
        run.finish(questions_per_task)


class _Run:
    """One training run: where it writes, and its two stages."""

    def __init__(
        self,
        output: Path,
        seed: int,
        device: torch.device,
        size: ModelSize,
        log: Log,
        save_every: int,
        exports: int,
        stop_after: int | None,
    ) -> None:
        self.output, self.seed, self.device, self.size = output, seed, device, size
        self._log, self._save_every, self._exports, self._left = log, save_every, exports, stop_after

    def say(self, line: str) -> None:
        """Write one line to the log file and the caller."""
        with (self.output / "train.log").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._log(line)

    def _state_file(self, stage: str) -> Path:
        return self.output / "state" / f"{stage}.safetensors"

    def _restore(self, stage: str, optimiser: MixedPrecision[Any]) -> int:
        """Load a stage's state; returns the step to go on with."""
        path = self._state_file(stage)
        if not path.exists():
            return 0
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
        optimiser.load(load_state(path))
        self.say(f"resumed {stage} at step {facts['step']}")
        return int(facts["step"])

    def _keep(self, stage: str, step: int, steps: int, optimiser: MixedPrecision[Any]) -> bool:
        """Save the state when due; tells whether the run must stop."""
        if self._left is not None:
            self._left -= 1
        stop = self._left == 0
        if step % self._save_every == 0 or step == steps or stop:
            save_state(self._state_file(stage), optimiser.state(), {"step": step, "seed": self.seed})
        return stop

    def _heads(self) -> DenseHeads:
        heads = DenseHeads(new_vision_tower(self.size, self.seed), self.size.dim)
        generator = torch.Generator().manual_seed(self.seed + 1)
        with torch.no_grad():
            for layer in (heads.head, heads.cls_head):
                layer.weight.normal_(0, self.size.dim**-0.5 / 2, generator=generator)
                layer.bias.zero_()
        return heads.to(self.device)

    def vision(self, steps: Schedule) -> bool:
        """Run the vision stage; tells whether it was finished."""
        optimiser = MixedPrecision(self._heads())
        start = self._restore("vision", optimiser)
        began = time.perf_counter()
        for step in range(start, steps.vision):
            loss, figures = self._vision_step(optimiser, step, steps.vision)
            if step % LOG_EVERY == 0 or step == steps.vision - 1:
                shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
                self.say(f"vision {step} {time.perf_counter() - began:.0f}s loss {loss:.3f} {shown}")
            if self._keep("vision", step + 1, steps.vision, optimiser):
                return False
        return True

    def _vision_step(
        self, optimiser: MixedPrecision[DenseHeads], step: int, steps: int
    ) -> tuple[float, dict[str, float]]:
        images, labels = vision_batch(self.seed, step, VISION_VIEWS)
        pixels = _pixels(images, self.device)
        dense, presence = optimiser.compute(pixels)
        loss, figures = dense_loss(dense, presence, torch.as_tensor(labels).long().to(self.device))
        loss.backward()
        optimiser.step(scale_at(step, steps, 0.55))
        return loss.item(), figures

    def _pool(self, heads: DenseHeads, language_steps: int) -> ScenePool:
        tower = heads.tower.bfloat16().requires_grad_(False)
        # A little over half of the images have one view.
        small = max(ALIGN_VIEWS * 4, math.ceil(0.55 * language_steps * IMAGES / SCENE_REUSE))
        return ScenePool(tower, self.seed, small, max(8, math.ceil(LARGE_SHARE * small)))

    def _network(self, pool: ScenePool) -> MixedPrecision[Language]:
        features = pool.singles(np.arange(min(32, pool.size))).features
        projector, language = new_language_parts(self.size, self.seed + 2, features.float().std().item())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 3)
            net = Language(projector, language, self.size.dim)
        return MixedPrecision(net.to(self.device))

    def language(self, steps: Schedule) -> bool:
        """Run projector alignment and the language stage; tells whether they were finished."""
        heads = self._heads()
        heads.load_state_dict(_weights(load_state(self._state_file("vision"))))
        tower = {name: value.clone() for name, value in heads.tower.state_dict().items()}
        pool = self._pool(heads, steps.language)
        optimiser = self._network(pool)
        total = steps.align + steps.language + steps.polish
        moments = steps.moments()
        start = self._restore("language", optimiser)
        tally = Tally()
        for step in range(start, total):
            if step < steps.align:
                line = self._align_step(optimiser, pool, step)
            else:
                line = self._language_step(optimiser, pool, step - steps.align, steps, tally)
            if step % LOG_EVERY == 0 or step == total - 1:
                self.say(line())
            stop = self._keep("language", step + 1, total, optimiser)
            if step + 1 - steps.align in moments:
                self._remember(optimiser, step + 1 - steps.align)
            if (step + 1) % max(total // self._exports, 1) == 0 or step + 1 == total:
                self._export(tower, optimiser, step + 1, total)
            if stop:
                return False
        return True

    def _remember(self, optimiser: MixedPrecision[Language], step: int) -> None:
        """Keep the weights of this moment, as they compute: their answers are compared after the training."""
        net = optimiser.compute
        parts = {"projector": net.projector, "language": net.language}
        weights = {
            f"{part}/{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }
        save_state(self.output / "state" / f"moment-{step:06d}.safetensors", weights, {"step": step, "seed": self.seed})

    def _align_step(self, optimiser: MixedPrecision[Language], pool: ScenePool, step: int) -> Callable[[], str]:
        """Fit the projector alone to the words, places and covers of its patches."""
        rng = np.random.default_rng((self.seed, 1, step))
        pictures = pool.singles(rng.integers(0, min(pool.size, 1024), ALIGN_VIEWS))
        inner = places(pictures.layout, self.device)["inner"].expand(ALIGN_VIEWS, -1)
        net = optimiser.compute
        words, place = align_loss(net, net.projector(pictures.features), pictures.labels, inner, quarters=True)
        (words + place).backward()
        optimiser.step(min(1.0, (step + 1) / 20))
        return lambda: f"align {step} words {words.item():.3f} place {place.item():.3f}"

    def _pictures(self, pool: ScenePool, step: int, rng: np.random.Generator, reading: Reading) -> Pictures:
        layout, images = reading.layout, reading.images
        if reading.source == "single":
            return pool.singles(pool.schedule(self.seed, step, images))
        if reading.source == "remixed":
            return pool.remixed(rng, images, layout)
        free = (MOST_CELLS - layout.rows + 1, MOST_CELLS - layout.cols + 1)
        corners = np.stack([rng.integers(0, limit, images) for limit in free], 1)
        return pool.coherent(rng.integers(0, pool.large, images), layout, corners)

    def _language_step(
        self, optimiser: MixedPrecision[Language], pool: ScenePool, step: int, steps: Schedule, tally: Tally
    ) -> Callable[[], str]:
        """Answer packed questions about a few images, with attention and the nouns' knowledge supervised.

        The last steps polish, at a lower rate: counting, areas and lettered options, which are learnt last, weigh more.
        """
        rng = np.random.default_rng((self.seed, 2, step))
        is_polish = step >= steps.language
        torch.manual_seed(self.seed * 1_000_003 + step)
        net = optimiser.compute
        reading = reading_at(step / steps.language, rng)
        pictures = self._pictures(pool, step, rng, reading)
        wanted = QUESTIONS_PER_IMAGE * reading.text // TEXT_TOKENS
        lettered = POLISH_LETTERED if is_polish else LETTERED_SHARE
        asked = [ask(truth, rng, wanted, lettered_share=lettered) for truth in pictures.truths]
        text = pack(asked, reading.text).to(self.device)
        keep = choose_tokens(rng, pictures, reading.count, reading.policy)
        layout, dim = pictures.layout, pictures.features.shape[-1]
        every = layout.is_single
        if every:
            projected = net.projector(pictures.features)
            visual = projected.gather(1, keep.unsqueeze(-1).expand(-1, -1, projected.shape[-1]))
            labels, inner = pictures.labels, places(layout, self.device)["inner"].expand(len(keep), -1)
        else:
            projected = visual = net.projector(pictures.features.gather(1, keep.unsqueeze(-1).expand(-1, -1, dim)))
            labels = pictures.labels.gather(1, keep.unsqueeze(-1).expand(-1, -1, 4))
            inner = places(layout, self.device)["inner"][keep]
        sequence = assemble(net.words, visual, keep, layout, text, original_positions=bool(rng.random() < 0.4))
        with tapped(net) as tap:
            hidden = net.language(
                inputs_embeds=sequence.embedded,
                attention_mask=sequence.mask,
                position_ids=sequence.positions,
                use_cache=False,
            ).last_hidden_state
        ends = hidden[text.answer_view, text.answer_place + sequence.prefix]
        logits = (ends @ net.words.T).float()
        losses = functional.cross_entropy(logits, text.answer_id, reduction="none")
        weights = {**TASK_WEIGHT, **(POLISH_WEIGHT if is_polish else {})}
        weight = torch.tensor([weights.get(task.rstrip("*"), 1.0) for task in text.tasks], device=self.device)
        guided = guidance(net, tap, sequence, layout, pictures.labels, text)
        words, place = align_loss(net, projected, labels, inner, quarters=every)
        strength = 1.0 if step < 0.75 * steps.language else 0.25
        loss = (losses * weight).sum() / weight.sum() + 0.1 * (words + place) + strength * guided.total()
        loss.backward()
        rate = scale_at(step, steps.language)
        if is_polish:
            rate = POLISH_RATE * scale_at(step - steps.language, steps.polish, 0.3)
        norm = optimiser.step(rate)
        right = (logits.argmax(-1) == text.answer_id).tolist()
        if reading.policy not in ("random", "uniform") and (layout.cells or layout.is_single):
            tally.add(text.tasks, right, losses.mean().item(), cells=not layout.is_single)
        stage = "polish" if is_polish else "language"
        return lambda: (
            f"{stage} {step}/{steps.language + steps.polish} {tally.seconds:.0f}s {layout.rows}x{layout.cols} "
            f"{reading.policy} {keep.shape[1]} {guided.line()} place {place.item():.2f} norm {norm:.2f} {tally.line()}"
        )

    def _measured_step(
        self, optimiser: MixedPrecision[Language], pool: ScenePool, at: int, tally: Tally, repeat: int
    ) -> None:
        self._language_step(optimiser, pool, at + repeat, Schedule(1000, 500, 1000, 1000), tally)

    def _export(self, tower: dict[str, Tensor], optimiser: MixedPrecision[Language], step: int, total: int) -> None:
        """Write a complete checkpoint directory from the master weights."""
        net = optimiser.master
        card = f"# Keepmap's embedded model\n\nTraining in progress: step {step} of {total}, seed {self.seed}.\n"
        save_checkpoint(
            self.output / "checkpoint",
            self.size,
            {name: value.cpu() for name, value in tower.items()},
            {name: value.cpu() for name, value in net.projector.state_dict().items()},
            {name: value.cpu() for name, value in net.language.state_dict().items()},
            card,
        )
        self.say(f"exported step {step} of {total}")

    def finish(self, questions_per_task: int) -> None:
        """Add what the trained model says at its moments, its router, the training log and the measured model card."""
        checkpoint = self.output / "checkpoint"
        log = checkpoint / "training.log"
        if questions_per_task:
            reader = Reader(checkpoint)
            self.posteriors(reader).save(checkpoint / "posteriors.npz")
            self.say("asked the fixed questions at every moment")
            train_router(checkpoint, seed=self.seed, say=self.say)
        shutil.copyfile(self.output / "train.log", log)
        if questions_per_task:
            write_card(checkpoint, evaluate(checkpoint, questions_per_task, say=self.say), log)
            self.say(f"wrote the model card of {checkpoint}")

    def posteriors(self, reader: Reader) -> Posteriors:
        """Ask the fixed questions with the weights of every moment that was kept."""

        def load(path: Path) -> None:
            for part in ("projector", "language"):
                module = {"projector": "multi_modal_projector", "language": "language_model"}[part]
                weights = {
                    name.removeprefix(f"{part}/"): value.float()
                    for name, value in load_state(path).items()
                    if name.startswith(f"{part}/")
                }
                getattr(reader.model.model, module).load_state_dict(weights)

        files = sorted((self.output / "state").glob("moment-*.safetensors"))
        return ask_moments(reader, [(int(path.stem.removeprefix("moment-")), partial(load, path)) for path in files])

    def measure(self, minutes: float) -> Schedule:
        """Time a few steps of every kind on throw-away weights and fit a schedule into the minutes."""
        optimiser = MixedPrecision(self._heads())

        def timed(act: Callable[[int], object], repeats: int) -> float:
            act(0)
            began = time.perf_counter()
            for index in range(1, repeats + 1):
                act(index)
            return (time.perf_counter() - began) / repeats

        vision = timed(lambda index: self._vision_step(optimiser, index, 1000), 4)
        pool = self._pool(self._heads(), 40)
        encode = timed(lambda index: pool.singles(np.array([index * SCENES_PER_CHUNK])), 2) / SCENES_PER_CHUNK
        network = self._network(pool)
        tally = Tally()
        # Steps of each phase: few tokens, more, and the mixture of views and cells that most steps are.
        parts = [
            timed(partial(self._measured_step, network, pool, at, tally), repeats)
            for at, repeats in ((10, 3), (150, 4), (600, 12))
        ]
        views = 0.55 * IMAGES / SCENE_REUSE * (1 + MOST_CELLS**2 * LARGE_SHARE)
        mean = 0.10 * parts[0] + 0.15 * parts[1] + 0.75 * parts[2] + views * encode
        seconds = 60 * minutes
        answered = (1 - VISION_SHARE) * seconds / mean
        schedule = Schedule(
            vision=max(1, round(VISION_SHARE * seconds / vision)),
            align=500,
            language=max(1, round((1 - POLISH_SHARE) * answered)),
            polish=max(1, round(POLISH_SHARE * answered)),
        )
        self.say(
            f"measured {vision:.2f} s per vision step, {encode:.3f} s per encoded scene, language steps "
            + ", ".join(f"{part:.2f}" for part in parts)
            + f" s: {minutes:g} minutes make {asdict(schedule)}"
        )
        return schedule


def _pixels(images: np.ndarray, device: torch.device) -> Tensor:
    return pixel_values(images, device).bfloat16()


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "weight/"
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
