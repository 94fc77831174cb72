"""What recording attention adds to one prefill, as a ratio to the same prefill without it. Goal: at most 1.05.

    python -m tests.benchmarks.recorder [--rounds 9] [--threads 1]

Two models: one with random weights of a middling size (1,024 visual tokens, 8 layers of width 512, grouped key heads),
where
the ratio says something about real models, and the embedded model, where it mostly says what a Python call costs. The
two
kinds of pass alternate, so that a busy machine slows both; the median of the pairs' ratios counts. CPU seconds, not
wall time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

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

from analysis.recorder import Recorder
from compression.backends import load_model
from compression.backends.base import Prompt
from compression.backends.llava import LlavaBackend
from compression.backends.prefill import prefill
from compression.strategies import CATALOGUE
from compression.tokens import VisualTokens
from tests.compression.backends.conftest import save_tiny_llava

GOAL = 1.05
QUESTION = "where is the red ship what is north a b c d"


def middling(folder: Path) -> LlavaBackend:
    """A random model of 1,024 visual tokens and 8 layers, with the tiny checkpoint's words."""
    save_tiny_llava(folder)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=512, patch_size=16
    )
    text = LlamaConfig(
        vocab_size=21, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=4, vision_feature_layer=-2)
    ).save_pretrained(folder)
    backend = LlavaBackend(folder, device="cpu")
    backend.processor = CLIPImageProcessorPil(size={"height": 512, "width": 512}, do_center_crop=False)
    return backend


def ratios(vlm: LlavaBackend, tokens: VisualTokens, prompt: Prompt, rounds: int) -> list[float]:
    """CPU seconds of a recorded prefill over those of a plain one, for pairs taken one after the other."""
    plan = CATALOGUE.plan("identity")

    def seconds(recorder: Recorder | None) -> float:
        start = time.process_time()
        prefill(vlm, tokens, prompt, plan, probe=recorder)
        return time.process_time() - start

    seconds(None), seconds(Recorder())
    found = []
    for turn in range(rounds):
        order = (None, Recorder()) if turn % 2 else (Recorder(), None)
        times = {recorder is not None: seconds(recorder) for recorder in order}
        found.append(times[True] / times[False])
    return found


def main() -> int:
    """Measure both models; 0 when the middling one meets the goal."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--rounds", type=int, default=9)
    ask.add_argument("--threads", type=int, default=1)
    options = ask.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        large = middling(Path(folder))
        prompt = Prompt(QUESTION, ("north", "south"), f"USER: <image> {QUESTION} ASSISTANT:")
        measured = {"middling": ratios(large, large.encode(image, (512, 512)), prompt, options.rounds)}
        small = load_model("embedded", device="cpu")
        tokens = small.encode(image[:256, :256], (256, 256))
        measured["embedded"] = ratios(small, tokens, small.prompt("How many ships are there?"), 5 * options.rounds)
    for name, values in measured.items():
        print(
            f"{name:10} recorder / plain = {statistics.median(values):.3f}  (pairs {min(values):.3f} to "
            f"{max(values):.3f}, n = {len(values)})"
        )
    met = statistics.median(measured["middling"]) <= GOAL
    print(f"goal {GOAL}: {'met' if met else 'missed'} on the middling model")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
