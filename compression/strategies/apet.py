"""ApET: keep the visual tokens that a few basis tokens approximate worst, and the basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.budget import split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import ROWS_AT_ONCE, SLACK, as_numpy, best_match, density_peaks, farthest_first, stable_topk
from compression.tokens import Signal, VisualTokens

TRACE = 1e-6
"""An error below this share of the token's norm is the trace that ridge and rounding leave; it counts as 0."""


def basis_parameter() -> Parameter:
    """How the basis is found, for the stages of ApET."""
    return Parameter(
        "by",
        "farthest",
        "Basis by farthest points, as released, by density peaks, or drawn at random.",
        choices=("farthest", "density", "random"),
    )


def blend_parameter() -> Parameter:
    """What a slot keeps of its own, for the stages of ApET."""
    return Parameter(
        "blend", 0.0, "Share of its own feature that a slot keeps; released: 0, for Qwen2.5-VL 0.5.", 0.0, 0.5
    )


def scaling_parameter() -> Parameter:
    """The weight of a token against those folded into it, for the stages of ApET."""
    return Parameter(
        "scaling", 1.0, "Weight s of a token against those folded into it: (s*x + sum)/(s + count).", 0.0, 100.0
    )


@dataclass(frozen=True)
class ApET(Strategy):
    """Keep the visual tokens that a small basis approximates worst, fold the rest into them, and keep the basis.

    Score: the error ||x - x'|| of the token's ridge approximation by M basis tokens, x' = x B^T (B B^T + eps I)^-1 B.
    The basis is found by farthest points from a random start. Of K outputs, those at the K - M largest errors are the
    mean of a token and of all tokens outside the K largest errors that are most like it by cosine. The M that come
    next are slots: in ascending order they are filled with the basis tokens in the order in which those were found.
    Outputs are read in the order of their places; a slot's own feature is lost, and its output is anchored where the
    basis token came from. Budget = tokens changes nothing.
    Differs from the paper: this is the stage of the encoder; the paper reduces once more inside the language model,
    and the released setting is the plan apet@96+apet_stage@64. The random start comes from the run's seed. At most
    K - 1 slots are filled, so that a small budget keeps a token of large error, and the basis has fewer tokens than a
    feature has numbers. Ties break by token index.
    Source: ApET, CVPR 2026, arXiv 2602.19870, and its released code.

    Costs 3*M*N*D + (N - K)*(K - M)*D multiply-adds, density peaks 2*N*N*D more, and no N x N matrix.
    """

    basis: int = 10
    start: str = "random"
    by: str = "farthest"
    ridge: float = 1e-5
    blend: float = 0.0
    scaling: float = 1.0
    per: str = "view"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="apet",
        title="ApET",
        paper="ApET, CVPR 2026, arXiv 2602.19870",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES}),
        reduces="prunes and merges",
        acts_on="encoder",
        own_order=True,
        score="error of the approximation by the basis tokens",
        parameters=(
            Parameter("basis", 10, "M, the number of basis tokens; released: 10.", 1),
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
            Parameter(
                "per",
                "view",
                "Whether each view has its own basis and an equal share of the budget, or all views have one.",
                choices=("view", "image"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=("encoder stage only: no reduction inside the language model",),
        deviations=(
            "The stage inside the language model is another strategy; the budget is met after the encoder.",
            "The random start comes from the run's seed; the released code draws it anew at every call.",
            "Chosen basis tokens are masked, so duplicates are not chosen twice.",
            "Density peaks count as many neighbours as there are basis tokens; that number is a reconstruction.",
            "The fit is solved in float64; duplicates make it singular in the released code's float32.",
            "With K <= M only K - 1 slots are filled; the released code needs K > M.",
            "The basis has at most one token less than a feature has numbers, else nothing would be left to rank.",
            "Errors below a millionth of the token's norm count as 0; ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs in the order of their places, view by view."""
        count = self.checked_budget(tokens, budget)
        generator = context.generator()
        parts = tokens.view_slices() if self.per == "view" else [slice(0, len(tokens))]
        quotas = split_evenly(count, [part.stop - part.start for part in parts])
        made = _Outputs()
        errors = []
        for part, quota in zip(parts, quotas, strict=True):
            features = tokens.features[part].detach()
            if not len(features):
                continue
            found = find_basis(features, self.basis, self.by, self.start, generator)
            error = approximation_errors(features, found, self.ridge)
            errors.append(error)
            if quota:
                self._add(made, features, found, error, quota, part.start)
        return Selection.merge(
            len(tokens),
            made.anchors,
            made.weights,
            scores=np.concatenate(errors),
            diagnostics={"basis": made.basis, "slots": made.slots},
        )

    def _add(
        self, made: _Outputs, features: Tensor, basis: Tensor, error: NDArray[np.float64], count: int, start: int
    ) -> None:
        """Add `count` outputs of the view that begins at `start`."""
        if count == len(features):
            for token in range(count):
                made.add(start + token, [token], [1.0], start)
            return
        order = as_numpy(stable_topk(torch.from_numpy(error), count))
        filled = min(len(basis), count - 1)
        worst, slots = order[: count - filled], np.sort(order[count - filled :])
        joined = joined_to(features, worst, np.setdiff1d(np.arange(len(features)), order))
        source = dict(zip(slots.tolist(), as_numpy(basis).tolist(), strict=False))
        for place in np.sort(order).tolist():
            if place not in source:
                made.add(start + place, *folded(place, joined[place], self.scaling), start)
                continue
            made.add(start + source[place], *filled_with(source[place], place, self.blend), start)
            made.basis.append(start + source[place])
            made.slots.append(start + place)


@dataclass
class _Outputs:
    """Collects outputs in reading order; `basis` and `slots` name the source and the place of each filled slot."""

    anchors: list[int] = field(default_factory=list)
    weights: list[tuple[Sequence[int], Sequence[float]]] = field(default_factory=list)
    basis: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def add(self, anchor: int, members: Sequence[int], weights: Sequence[float], start: int) -> None:
        """One output; its members are counted in the view that begins at `start`, its anchor in the image."""
        self.anchors.append(anchor)
        self.weights.append(([start + member for member in members], weights))


def find_basis(features: Tensor, count: int, by: str, start: str, generator: torch.Generator) -> Tensor:
    """Basis tokens in the order in which they are found, int64 [M].

    Args:
        features: Float [tokens, dim].
        count: M at most; never more than the tokens, nor than the numbers of a feature less one.
        by: "farthest" points, "density" peaks or "random".
        start: Of the farthest points; see `farthest_basis`.
        generator: For what is drawn.
    """
    tokens, dim = features.shape
    found = min(count, tokens, max(1, dim - 1))
    if by == "random":
        return torch.randperm(tokens, generator=generator)[:found].to(features.device)
    if by == "density":
        return torch.from_numpy(density_peaks(features, found)[0]).to(features.device)
    return farthest_basis(features, count, start, generator)


def folded(token: int, joined: NDArray[np.int64], scaling: float) -> tuple[list[int], list[float]]:
    """A token and those that joined it, and their weights in the mean: (s*x + sum)/(s + count)."""
    if not len(joined):
        return [token], [1.0]
    total = scaling + len(joined)
    return [token, *joined.tolist()], [scaling / total, *[1 / total] * len(joined)]


def filled_with(source: int, place: int, blend: float) -> tuple[list[int], list[float]]:
    """What a slot holds: the basis token, and a share of the slot's own feature."""
    if not blend or source == place:
        return [source], [1.0]
    return [source, place], [1 - blend, blend]


def farthest_basis(features: Tensor, count: int, start: str, generator: torch.Generator) -> Tensor:
    """Basis tokens by farthest points, in the order in which they are found, int64 [M].

    Args:
        features: Float [tokens, dim].
        count: M at most; never more than the tokens, nor than the numbers of a feature less one.
        start: "random" by the generator, "mean" for the token farthest from the mean, or "first".
        generator: For the random start.
    """
    tokens, dim = features.shape
    wide = features if features.dtype == torch.float64 else features.float()
    if start == "random":
        first = torch.randint(tokens, (), generator=generator).to(features.device)
    elif start == "mean":
        first = squared_distances(wide, wide.mean(dim=0)).argmax()
    else:
        first = torch.tensor(0, device=features.device)
    found = min(count, tokens, max(1, dim - 1))
    slack = SLACK * float(wide.square().sum(dim=1).mean())
    return farthest_first(lambda pick: squared_distances(wide, wide[pick]), tokens, found, first, slack)[0]


def joined_to(features: Tensor, worst: NDArray[np.int64], rest: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """For each token of large error the tokens of the rest that are most like it by cosine, ascending."""
    device = features.device
    rows, targets = features[torch.from_numpy(rest).to(device)], features[torch.from_numpy(worst).to(device)]
    owner = as_numpy(best_match(rows, targets))
    edges = np.searchsorted(np.sort(owner), np.arange(1, len(worst)))
    return dict(zip(worst.tolist(), np.split(rest[np.argsort(owner, kind="stable")], edges), strict=True))


def squared_distances(features: Tensor, to: Tensor) -> Tensor:
    """||x - y||^2 of each row of [tokens, dim] to one of [dim], [tokens]; a part of the rows at a time."""
    return torch.cat([(part - to).square().sum(dim=1) for part in torch.split(features, ROWS_AT_ONCE)])


def approximation_errors(features: Tensor, basis: Tensor, ridge: float) -> NDArray[np.float64]:
    """||x - x B^T (B B^T + ridge I)^-1 B|| of each token, float64 [tokens]; 0 below `TRACE` of its norm.

    Args:
        features: Float [tokens, dim].
        basis: int64 [M], which of them are the rows of B.
        ridge: Above 0.
    """
    rows = features[basis].double()
    gram = rows @ rows.T + ridge * torch.eye(len(rows), dtype=torch.float64, device=rows.device)
    solved = torch.linalg.solve(gram, rows)
    errors = []
    for part in torch.split(features, ROWS_AT_ONCE):
        wide = part.double()
        error = (wide - wide @ rows.T @ solved).norm(dim=1)
        errors.append(torch.where(error > TRACE * wide.norm(dim=1), error, 0.0))
    found: NDArray[np.float64] = torch.cat(errors).cpu().numpy()
    return found
