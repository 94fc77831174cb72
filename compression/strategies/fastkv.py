"""FastKV: from the middle of the language model on, only what the end of the prompt looks at goes further."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy
from compression.errors import InvalidParameter
from compression.layer import Heads
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class FastKV(DecoderStrategy):
    """Let only the visual tokens that the end of the prompt attends to propagate beyond the middle of the model.

    Token-selective propagation: in the layer before the cut the last 8 positions of the prompt look back; their
    attention is summed, smoothed along the sequence by a mean over 7 positions (zeros beyond the ends count), and
    summed over heads. The best visual tokens go on, in their order and with their original position ids.
    The cache of every layer keeps, for each of its key heads, the tokens of highest such sum over that head's queries
    in that layer: half as many as go on, as in the released 10 % of a sequence of which 20 % go on. That changes
    decoding only; cache=whole leaves it out.
    Score: that smoothed sum at the token.
    Differs from the paper: words always go on and stay in every cache, and only visual tokens are selected; the cut
    scales with the depth of the model, behind layer 15 of 32; the budget is the mean over the layers, and with all
    tokens asked for the caches stay whole too; ties break by token index.
    Source: FastKV, arXiv 2502.01068, and its released code.
    """

    layer: int | None = None
    window: int = 8
    kernel: int = 7
    positions: Positions = "original"
    cache: Literal["compressed", "whole"] = "compressed"
    retain: float = 0.5

    published: ClassVar[tuple[int, ...]] = (16,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="fastkv",
        title="FastKV",
        paper="FastKV, arXiv 2502.01068, 2025",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes",
        score="attention from the end of the prompt in the layer before the cut, summed over heads, smoothed",
        parameters=(
            Parameter(
                "layer",
                None,
                "The layer before which tokens are dropped; left out, it is round(16*L/32) (released: 16 of 32).",
                minimum=1,
                kind=int,
            ),
            Parameter("window", 8, "Positions at the end of the prompt that look back (released: 8).", minimum=1),
            Parameter("kernel", 7, "Positions in the mean that smooths, an odd number (released: 7).", minimum=1),
            positions_parameter("original"),
            Parameter(
                "cache",
                "compressed",
                "Whether every layer's cache is compressed for decoding, as released, or stays whole.",
                choices=("compressed", "whole"),
            ),
            Parameter(
                "retain",
                0.5,
                "Visual tokens in each cache for each that goes on; released: 10 % of a sequence, of which 20 % go on.",
                0.01,
                1.0,
            ),
        ),
        deviations=(
            "Only visual tokens are selected; the released code selects among all positions of a text.",
            "The window begins behind the picture where the words there are fewer.",
            "Words stay in every cache; the released code keeps those of its window and selects among the others.",
            "With a budget of all tokens the caches stay whole.",
            "The cut layer scales with the depth of the language model; at 32 layers it is the released one.",
            "The budget is the mean over all layers; the released rate counts positions behind the cut.",
            "Ties break by token index.",
        ),
        version=2,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise InvalidParameter(f"kernel takes an odd number, got {self.kernel}; write {self.kernel + 1}")

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        scores = over_heads(self._look_back(state.previous, state.behind))[state.columns]
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(
            len(tokens), kept, scores=scores_numpy(scores), diagnostics={"layer": context.layer, "window": self.window}
        )

    def cached(self, heads: Heads, visual: Tensor, behind: Tensor, keep: int) -> Tensor | None:
        """For each key head the tokens of highest score in this layer; see `DecoderStrategy.cached`."""
        count = max(1, math.floor(self.retain * keep))
        if self.cache == "whole" or count >= len(visual):
            return None
        looked = self._look_back(heads, behind)
        groups = over_heads(looked.unflatten(0, (len(heads.key), -1)).transpose(0, 1))[:, visual]
        return torch.stack([stable_topk(scores, count).sort().values for scores in groups])

    def _look_back(self, heads: Heads, behind: Tensor) -> Tensor:
        """Smoothed attention from the window to all positions in front of it, float32 [heads, positions]."""
        length = heads.key.shape[1]
        window = behind[-self.window :]
        front = int(window[0]) if len(window) else length
        asking = window if len(window) else torch.tensor([length - 1])
        looked: Tensor = over_heads(heads.rows(asking)[:, :, :front].transpose(0, 1))
        pooled: Tensor = avg_pool1d(looked[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
        return pooled
