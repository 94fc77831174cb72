"""ApET inside the language model: keep the hidden states that a few of them approximate worst, and those few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, stable_topk
from compression.strategies.apet import (
    approximation_errors,
    basis_parameter,
    blend_parameter,
    filled_with,
    find_basis,
    folded,
    joined_to,
    scaling_parameter,
)
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class ApETStage(DecoderStrategy):
    """Before one layer keep the visual tokens that a small basis approximates worst, fold the rest into them.

    This is ApET's stage inside the language model, on the hidden states of the visual tokens, without its stage after
    the encoder. Of K outputs, those at the K - M largest errors are the mean of a token and of all tokens outside the
    K largest errors that are most like it by cosine. The M that come next are slots: the one of the j-th largest
    error among them is filled with the j-th basis token, in the order in which farthest points found them. Outputs
    are read in the order of their places.
    Score: the error ||x - x'|| of the token's ridge approximation by the basis, x' = x B^T (B B^T + eps I)^-1 B.
    Differs from the paper: the random start comes from the run's seed; at most K - 1 slots are filled, and the basis
    has fewer tokens than a state has numbers; the layer scales with the depth of the model, 16 of 32; the budget is
    the mean over the layers; ties break by token index.
    Source: ApET, CVPR 2026, arXiv 2602.19870, and its released code.
    """

    layer: int | None = None
    basis: int = 10
    start: str = "random"
    by: str = "farthest"
    ridge: float = 1e-5
    blend: float = 0.0
    scaling: float = 1.0
    positions: Positions = "renumbered"
    attention: Attention = "plain"

    released_positions: ClassVar[Positions] = "renumbered"
    published: ClassVar[tuple[int, ...]] = (16,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="apet_stage",
        title="ApET (language-model stage)",
        paper="ApET, CVPR 2026, arXiv 2602.19870",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes and merges",
        own_order=True,
        score="error of the approximation of the token's hidden state by the basis tokens",
        parameters=(
            Parameter(
                "layer",
                None,
                "The layer before which tokens are reduced; left out, it is round(16*L/32) (released: 16 of 32).",
                minimum=1,
                kind=int,
            ),
            Parameter("basis", 10, "M, the number of basis tokens; released: 10.", minimum=1),
            Parameter(
                "start",
                "random",
                "First basis token: random by the run's seed, as released, the farthest from the mean, or token 0.",
                choices=("random", "mean", "first"),
            ),
            basis_parameter(),
            Parameter("ridge", 1e-5, "eps of the fit; released: 1e-5, for Qwen2.5-VL 0.1.", 1e-6, 1.0),
            blend_parameter(),
            scaling_parameter(),
            positions_parameter("renumbered"),
            attention_parameter(),
        ),
        labels=("stage inside the language model only: no reduction after the encoder",),
        alone=("stage inside the language model only: no reduction after the encoder",),
        deviations=(
            "The stage after the encoder is another strategy; the released mean of 64 is 96 tokens there and 32 here.",
            "The random start comes from the run's seed; the released code draws it anew at every call.",
            "Chosen basis tokens are masked, so duplicates are not chosen twice; the fit is solved in float64.",
            "With K <= M only K - 1 slots are filled; the released code needs K > M.",
            "A slot whose basis token is among the outputs already keeps its own state, not a copy of that one.",
            "Density peaks count as many neighbours as there are basis tokens; that number is a reconstruction.",
            "The layer scales with the depth of the language model; at 32 layers it is the released one.",
            "Errors below a millionth of the token's norm count as 0; ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs in the order of their places.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        states = state.hidden[state.columns].detach()
        basis = find_basis(states, self.basis, self.by, self.start, context.generator())
        errors = approximation_errors(states, basis, self.ridge)
        if count == len(tokens):
            return Selection.prune(len(tokens), np.arange(count), scores=errors)
        order = as_numpy(stable_topk(torch.from_numpy(errors), count))
        filled = min(len(basis), count - 1)
        worst, slots = order[: count - filled], order[count - filled :]
        joined = joined_to(states, worst, np.setdiff1d(np.arange(len(tokens)), order))
        filling = dict(zip(slots.tolist(), as_numpy(basis).tolist(), strict=False))
        filling = {slot: source for slot, source in filling.items() if source not in order}
        none = np.empty(0, dtype=np.int64)
        anchors, weights = [], []
        for place in np.sort(order).tolist():
            anchors.append(filling.get(place, place))
            if place in filling:
                weights.append(filled_with(filling[place], place, self.blend))
            else:
                weights.append(folded(place, joined.get(place, none), self.scaling))
        return Selection.merge(
            len(tokens),
            anchors,
            weights,
            scores=errors,
            diagnostics={"basis": list(filling.values()), "slots": list(filling)},
        )
