"""What keeping fewer visual tokens saves of the prefill, beside what FLOPs predict, and what choosing them costs.

    python -m tests.benchmarks.families [--size small|7b] [--device cpu|cuda] [--rounds 3] [--threads 1] [--only NAMES]

A LLaVA-1.5 with random weights: 576 visual tokens of 24 x 24 patches and a prompt of sixty words. `small` has 8 layers
of width 1,024 and runs on an idle CPU in less than three minutes; `7b` has the sizes of LLaVA-1.5 7B and is made on the
device itself, in bfloat16 there. Two tables:

- the prefill at a share of the tokens (`uniform_grid`, which costs nothing), as a ratio to all of them in the same
  round, beside the ratio of `analysis.cost.prefill_flops`;
- every strategy that works on encoded tokens and whose signals the model has, at a quarter of the tokens or the lowest
  that it can reach: its seconds, the prefill's, and its share of both. What a strategy inside the language model does
  between the layers counts as its own, and so does a first pass that it asks for.

Wall time, because a GPU has no other. Rounds go through all plans in turn, each from another place, so that what else
runs on the machine slows all of them; medians and the range are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.utils import logging

from analysis.cost import prefill_flops
from compression.backends.base import Prompt
from compression.backends.llava import LlavaBackend
from compression.backends.prefill import Pass, prefill
from compression.compressor import Plan, Stage
from compression.errors import InvalidBudget
from compression.sight import LOOKS
from compression.strategies import CATALOGUE
from compression.tokens import VisualTokens
from tests.compression.backends.conftest import WORDS, tiny_tokenizer

RETENTION = (1.0, 0.5, 0.25, 0.1)
SHARE = 0.25
QUESTION = " ".join(WORDS[2:14] * 5)
SQUARE = {"height": 336, "width": 336}
TEXT = {
    "small": {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 8, "num_attention_heads": 16},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
TOWER_LAYERS = {"small": 4, "7b": 24}


class Made:
    """Stands where the library's class would read weights: makes them up on the device."""

    device = "cpu"

    @classmethod
    def from_pretrained(cls, folder: str, *, dtype: torch.dtype, attn_implementation: Any, **_: Any) -> Any:
        """A model of the folder's configuration."""
        config = LlavaConfig.from_pretrained(folder)
        with torch.device(cls.device):
            return LlavaForConditionalGeneration._from_config(
                config, dtype=dtype, attn_implementation=attn_implementation
            )


class RandomLlava(LlavaBackend):
    """A LLaVA whose folder has no weights."""

    model_class: ClassVar[Any] = Made


def random_llava(folder: Path, size: str, device: str) -> RandomLlava:
    """A LLaVA-1.5 of a size, with the tiny checkpoint's words."""
    torch.manual_seed(0)
    LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=TOWER_LAYERS[size],
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=32064, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=0, **TEXT[size]
        ),
        image_token_id=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size=SQUARE, do_center_crop=False).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    Made.device = device
    return RandomLlava(folder, device=device, dtype="float32" if device == "cpu" else "bfloat16")


def reachable(vlm: RandomLlava, text: str, total: int) -> Plan:
    """A strategy at a quarter of the tokens, or at the least that it can leave."""
    plan = CATALOGUE.plan(f"{text}@{SHARE}")
    try:
        vlm.check(plan, total)
    except InvalidBudget as error:
        plan = CATALOGUE.plan(f"{text}@{error.lowest}")
    return plan


def in_turn(vlm: RandomLlava, tokens: VisualTokens, plans: Sequence[Plan], rounds: int) -> list[list[Pass]]:
    """The passes of each plan, one a round, after one that does not count."""
    prompt = Prompt(QUESTION, (), f"USER: <image> {QUESTION} ASSISTANT:")
    for plan in plans:
        prefill(vlm, tokens, prompt, plan)
    passes: list[list[Pass]] = [[] for _ in plans]
    for number in range(rounds):
        for at in range(len(plans)):
            turn = (at + number * len(plans) // rounds) % len(plans)
            made = prefill(vlm, tokens, prompt, plans[turn])
            made.cache = None  # or the rounds would hold gigabytes
            passes[turn].append(made)
    return passes


def spread(values: Sequence[float], digits: int = 2, factor: float = 1.0) -> str:
    """The median, and the range in brackets."""
    scaled = [factor * value for value in values]
    return f"{statistics.median(scaled):,.{digits}f} [{min(scaled):,.{digits}f}, {max(scaled):,.{digits}f}]"


def by_retention(vlm: RandomLlava, tokens: VisualTokens, rounds: int) -> None:
    """Print the prefill at each share of the tokens beside what the FLOPs say."""
    plans = [CATALOGUE.plan("identity" if share == 1.0 else f"uniform_grid@{share}") for share in RETENTION]
    passes = in_turn(vlm, tokens, plans, rounds)
    flops = [prefill_flops(vlm.architecture, made[-1].sequence_per_layer) for made in passes]
    print("\n| retention | visual tokens | positions | GFLOPs | prefill, ms | ratio | ratio by FLOPs | GFLOP/s |")
    print("|---|---|---|---|---|---|---|---|")
    for share, made, counted in zip(RETENTION, passes, flops, strict=True):
        seconds = [one.prefill_seconds for one in made]
        ratios = [one / whole.prefill_seconds for one, whole in zip(seconds, passes[0], strict=True)]
        print(
            f"| {share:g} | {made[-1].tokens_per_layer[0]} | {made[-1].sequence_per_layer[0]} | {counted / 1e9:,.0f} | "
            f"{spread(seconds, 0 if vlm.device == 'cpu' else 1, 1e3)} | {spread(ratios)} | {counted / flops[0]:.2f} | "
            f"{counted / 1e9 / statistics.median(seconds):,.0f} |",
            flush=True,
        )


def by_strategy(vlm: RandomLlava, tokens: VisualTokens, names: Sequence[str], rounds: int) -> None:
    """Print what each strategy takes of the prefill that it shortens."""
    looking = [name for name in names if CATALOGUE.build(name).info.stage in LOOKS]
    missing = [name for name in names if name not in looking and CATALOGUE.build(name).info.missing(vlm.provides)]
    for left_out, why in ((looking, "encode the image anew"), (missing, "the model lacks a signal")):
        if left_out:
            print(f"\nleft out, {why}: {', '.join(left_out)}")
    plans = [CATALOGUE.plan("identity")]
    plans += [reachable(vlm, name, len(tokens)) for name in names if name not in ("identity", *looking, *missing)]
    passes = in_turn(vlm, tokens, plans, rounds)
    print(
        "\n| strategy | acts | tokens, mean | compress, ms | prefill, ms | share of both, % | both / no compression | "
        "prefill by FLOPs |\n|---|---|---|---|---|---|---|---|"
    )
    whole = prefill_flops(vlm.architecture, passes[0][-1].sequence_per_layer)
    for plan, made in zip(plans, passes, strict=True):
        both = [one.compress_seconds + one.prefill_seconds for one in made]
        shares = [one.compress_seconds / total for one, total in zip(made, both, strict=True)]
        against = [
            total / (one.compress_seconds + one.prefill_seconds) for total, one in zip(both, passes[0], strict=True)
        ]
        where = "inside" if any(step.stage is Stage.DECODER for step in plan.steps) else "before"
        counted = prefill_flops(vlm.architecture, made[-1].sequence_per_layer) / whole
        print(
            f"| `{plan.info.name}` | {where} | {statistics.mean(made[-1].tokens_per_layer):.0f} | "
            f"{spread([one.compress_seconds for one in made], 1, 1e3)} | "
            f"{spread([one.prefill_seconds for one in made], 0 if vlm.device == 'cpu' else 1, 1e3)} | "
            f"{spread(shares, 1, 100)} | {spread(against)} | {counted:.2f} |",
            flush=True,
        )


@torch.no_grad()
def main() -> None:
    """Print the tables."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--size", choices=tuple(TEXT), default="small")
    ask.add_argument("--device", default="cpu", help="cpu or cuda")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--only", default="", help="names of strategies, by commas")
    chosen = ask.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.disable_progress_bar()
    image = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        vlm = random_llava(Path(folder), chosen.size, chosen.device)
        tokens = vlm.encode(image, (336, 336))
        words = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else f"CPU, {chosen.threads} thread(s)"
        a = vlm.architecture
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(
            f"{words}; {vlm.dtype}; {vlm.card.parameters / 1e9:.2f} billion parameters, {a.layers} layers of width "
            f"{a.dim}; rounds: {chosen.rounds}; load of the machine before: {load}; median [least, most]"
        )
        by_retention(vlm, tokens, chosen.rounds)
        names = chosen.only.split(",") if chosen.only else CATALOGUE.names()
        by_strategy(vlm, tokens, names, chosen.rounds)


if __name__ == "__main__":
    main()
