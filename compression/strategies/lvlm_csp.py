"""LVLM_CSP: a coarse look at a few tokens, a full look at all of them, then the few that were looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import Act, DecoderStrategy, cuts_of, read_stages, scaled, stages_parameter
from compression.errors import InvalidParameter, MissingSignal
from compression.selection import Selection
from compression.similarity import as_numpy, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

RATIO = 9 / 4  # N/4 tokens in the first stage and N/9 in the last


@dataclass(frozen=True)
class LVLMCSP(DecoderStrategy):
    """Begin with representatives of the visual tokens, let all of them return for some layers, then keep a few.

    Cluster, scatter, prune. The first layers process N_c representatives: every floor(N/N_c)-th token, random ones, or
    those that [CLS] looks at most. Before layer round(L/4) all tokens return: those that were left out enter as they
    came to the language model, the others as the layers in front made them. Before layer round(L/2) the tokens that
    the answer position attends to most in the layer in front stay, in their order. Position ids are the original ones
    throughout. The mean over the layers is met by N_c and the last number together, in the proportion of N/4 to N/9.
    Score: mean over heads of attention[answer position, token] in the layer before the last stage.
    Differs from the paper: its layers, numbers and the states in which tokens return are not published and are
    reconstructed; representatives by segments are left out; the answer position asks where the paper has a
    segmentation token; the budget is the mean over the layers; ties break by token index.
    Source: LVLM_CSP, arXiv 2504.10854.
    """

    first: Literal["uniform", "random", "cls"] = "uniform"
    ratio: float = RATIO
    stages: str | None = None

    published: ClassVar[tuple[int, ...]] = (8, 16)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="lvlm_csp",
        title="LVLM_CSP",
        paper="LVLM_CSP, arXiv 2504.10854",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_ATTENTION}),
        reduces="prunes",
        score="attention from the answer position in the layer before the last stage, mean over heads",
        parameters=(
            Parameter(
                "first",
                "uniform",
                "Representatives of the first stage: evenly spaced, random, or most attended by [CLS] of the encoder.",
                choices=("uniform", "random", "cls"),
                reconstructed=True,
            ),
            Parameter(
                "ratio",
                RATIO,
                "Tokens of the first stage for each of the last, as far as there are so many; N/4 to N/9 is 2.25.",
                0.01,
                100.0,
                reconstructed=True,
            ),
            stages_parameter(
                "The layers before which all tokens return and most are dropped, joined by '/'; left out, they are "
                "8/16 of 32, scaled."
            ),
        ),
        labels=("reconstruction: layers, numbers of tokens and states in which tokens return",),
        deviations=(
            "The layers L/4 and L/2, and N/4 and N/9 tokens, are this project's: the paper does not publish its own.",
            "Tokens return in the state in which they entered the language model, with their position ids.",
            "Representatives by detected segments need a segmentation model and are left out.",
            "The answer position asks in the last stage; the paper asks with its segmentation token.",
            "The budget is the mean over all layers; the first and the last stage share it in a fixed proportion.",
            "Ties break by token index.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages is not None and len(read_stages(self.stages)) != 2:
            raise InvalidParameter(
                f"stages of lvlm_csp are two layers, where tokens return and where most are dropped, got "
                f"{self.stages!r}; write for example 8/16"
            )

    def cut_layers(self, layers: int) -> tuple[int, ...]:
        """Layer 0, where tokens return, and where most are dropped; the last is missing in a model of two layers.

        Raises:
            InvalidParameter: a layer asked for is outside 1..layers-1, or the model has but one.
        """
        cuts = cuts_of(self.stages, self.published, layers)
        return (0, *cuts)

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """N_c, all, and the last number: N_c and the last in the proportion `ratio`, scaled by a common factor."""
        # The smaller of the two is all at share 1, so that every mean up to all tokens can be met.
        parts = scaled((max(self.ratio, 1.0), min(self.ratio, 1.0)), total, share, 2)
        first, last = parts if self.ratio >= 1 else reversed(parts)
        return [first, total, last][: len(cuts)]

    def _acts(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> tuple[Act, ...]:
        keeps = self.keeps(total, share, cuts, layers)
        return tuple(Act(layer, keep, returns=layer == cuts[1]) for layer, keep in zip(cuts, keeps, strict=True))

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending: representatives before layer 0, the most attended ones later.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: attention is missing: that of [CLS] for `first=cls`, or that of the layer in front.
        """
        count = self.checked_budget(tokens, budget)
        if context.layer == 0:
            return Selection.prune(len(tokens), self._representatives(tokens, count, context))
        if context.attention is None or context.attention.shape[-1] != len(tokens):
            raise MissingSignal(
                f"lvlm_csp needs the signal 'layer_attention', rows of a layer over {len(tokens)} visual tokens, got "
                f"{'none' if context.attention is None else tuple(context.attention.shape)}; choose another model"
            )
        scores = context.attention[:, 0].float().mean(dim=0)
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(len(tokens), kept, scores=scores_numpy(scores), diagnostics={"layer": context.layer})

    def _representatives(self, tokens: VisualTokens, count: int, context: Context) -> NDArray[np.int64]:
        if self.first == "uniform":
            return np.arange(count) * math.floor(len(tokens) / count)
        if self.first == "random":
            return np.sort(torch.randperm(len(tokens), generator=context.generator())[:count].numpy())
        looked = self.signal(tokens, Signal.CLS_ATTENTION).float().mean(dim=0)
        return np.sort(as_numpy(stable_topk(looked, count)))
