"""CoViPAL's teacher: keep the visual tokens that a deeper layer attends to, known from a full first pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy, one_cut
from compression.errors import InvalidParameter, MissingSignal
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

GUIDANCE = 16  # of 32 layers
NOTE = "covipal runs its teacher, a full first pass whose FLOPs are not in the estimate, not the trained module."


@dataclass(frozen=True)
class CoViPAL(DecoderStrategy):
    """Prune early by what a deeper layer will attend to: the target that the trained module learns to foresee.

    The trained module scores each visual token before a shallow layer; in its first training stage it imitates the
    attention of a deeper layer. Its weights are not published, so this runs the teacher itself: a full first pass, and
    before layer K the tokens with most of that attention stay, in their order and with their original position ids. It
    is an upper mark for the module, not a way to save time.
    Score: attention of the question's words to the token in the guidance layer of the full pass, summed over heads and
    words, normalised over the visual tokens.
    Differs from the paper: the teacher stands in for the trained module; both layers are this project's; the budget is
    the mean over the layers of the second pass; ties break by token index.
    Source: CoViPAL, arXiv 2508.17243.
    """

    layer: int | None = None
    guidance: int | None = None
    positions: Positions = "original"

    published: ClassVar[tuple[int, ...]] = (2,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="covipal",
        title="CoViPAL (teacher)",
        paper="CoViPAL, arXiv 2508.17243, 2025",
        stage=Stage.DECODER,
        needs=frozenset({Signal.TEACHER_ATTENTION}),
        reduces="prunes",
        position_free=True,
        score="attention from the question in a deeper layer of a full first pass, summed over heads, normalised",
        parameters=(
            Parameter(
                "layer",
                None,
                "K, the layer before which tokens are dropped; left out, it is max(1, round(2*L/32)).",
                minimum=1,
                kind=int,
                reconstructed=True,
            ),
            Parameter(
                "guidance",
                None,
                "The layer behind K whose attention is the teacher; left out, it is round(16*L/32).",
                minimum=2,
                kind=int,
                reconstructed=True,
            ),
            positions_parameter("original"),
        ),
        labels=("reconstruction: the teacher's attention from a full first pass in place of the trained module",),
        deviations=(
            "The trained module is replaced by what it learns to imitate; a full first pass is run for it.",
            "The pruning layer and the guidance layer are this project's choice.",
            "The tokens of the first pass are not in the mean over the layers, nor its FLOPs in the estimate.",
            "Ties break by token index.",
        ),
    )

    def cut_layers(self, layers: int) -> tuple[int, ...]:
        """K on a language model of `layers` layers.

        Raises:
            InvalidParameter: a layer asked for is outside 1..layers-1, or the guidance layer is not behind K.
        """
        return (self._layers(layers)[0],)

    def teacher_layer(self, layers: int) -> int:
        """The guidance layer on a language model of `layers` layers.

        Raises:
            InvalidParameter: as `cut_layers` says.
        """
        return self._layers(layers)[1]

    def _layers(self, layers: int) -> tuple[int, int]:
        """K and the guidance layer; what is left out lies on its side of what is given."""
        (cut,), (guide,) = one_cut(self.layer, self.published[0], layers), one_cut(self.guidance, GUIDANCE, layers)
        if guide > cut or layers == 2:
            return cut, guide
        if self.layer is None:
            cut = guide - 1
        elif self.guidance is None and cut < layers - 1:
            guide = cut + 1
        else:
            raise InvalidParameter(
                f"guidance must be a layer behind the cut before layer {cut} of {layers}, got {guide}; name a deeper "
                "one, or cut earlier"
            )
        return cut, guide

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no teacher's attention to these tokens.
        """
        count = self.checked_budget(tokens, budget)
        if context.teacher is None or len(context.teacher) != len(tokens):
            told = "none" if context.teacher is None else f"one of {len(context.teacher)}"
            raise MissingSignal(
                f"covipal needs the signal {Signal.TEACHER_ATTENTION.value!r} over {len(tokens)} visual tokens, got "
                f"{told}; choose another model"
            )
        total = context.teacher.sum()
        scores = context.teacher / total if total > 0 else context.teacher
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(
            len(tokens), kept, scores=scores_numpy(scores), diagnostics={"layer": context.layer, "notes": [NOTE]}
        )
