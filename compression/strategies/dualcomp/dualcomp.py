"""DualComp: the router's mixture of a semantic and a geometric stream, fused into one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from compression.budget import split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.positions import Positions, positions_entering
from compression.selection import RouterDecision, Selection, Stream
from compression.similarity import min_max, scores_numpy
from compression.strategies.dualcomp.igsr import Route, structure, trace
from compression.strategies.dualcomp.router import rule_ratio, rule_router
from compression.strategies.dualcomp.scsa import Clusters, cluster
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class _Routed:
    """What a router decided, trained or by rule."""

    lam: float
    rho: float
    source: str
    reason: str
    margins: Mapping[str, float]


@dataclass(frozen=True)
class DualComp(Strategy):
    """Split the budget between clusters of objects and a route over the scene, as the question asks.

    Score: each stream ranks by its own; shown is (1 - lambda) * importance of the token's cluster + lambda *
    structure, each scaled to 0..1 in its view. Router: lambda (0 objects, 1 geometry) and the ratio rho; n_geo =
    round(lambda*n) outputs are geometric. Semantic stream: tokens join their most similar raster predecessor above
    tau(lambda); clusters are ranked by the [CLS] attention that falls on them; a small one is its most attended
    token, unchanged (the others leave no trace), a larger one its attention-weighted mean. Geometric stream: S_geo is
    the squared distance of a feature from its 3 x 3 mean; its maxima in a grid of regions are visited in turn, each
    step to the strongest neighbour that is nearer to the goal.
    Outputs: semantic by descending importance, then the route in path order, scaled by 1 - lambda and lambda. A token
    can be in both streams and then gives two outputs.
    Differs from the paper: the equations are the paper's; the constants it leaves out are parameters, marked as
    reconstructions. The paper's router weights are not public: a router that comes with the model decides, trained by
    us in the paper's shape, and where there is none a rule over the question's words. Outputs mix projected
    tokens, while similarity and structure are read before the projector.
    Source: DualComp, arXiv 2604.11122, 2026, and its companion transcription.
    """

    lam: float | None = None
    tau0: float = 0.75
    tau_slope: float = 0.20
    theta0: float = 4.0
    theta_slope: float = 1.0
    beta: float = 1.0
    connectivity: str = "8"
    scale: bool = True
    weight_floor: float = 0.02
    rho_min: float = 0.02
    per: str = "view"
    router: str = "auto"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="dualcomp",
        title="DualComp",
        paper="DualComp, arXiv 2604.11122, 2026",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_ATTENTION}),
        instead={Signal.CLS_ATTENTION: Signal.RECEIVED_ATTENTION},
        reduces="prunes and merges",
        acts_on="projected",
        adaptive=True,
        identity_at_full=False,
        own_order=True,
        score="(1 - lambda) * cluster importance + lambda * structure, each scaled to 0..1 in its view",
        parameters=(
            Parameter(
                "lam", None, "lambda, 0 objects to 1 geometry; left out, the router chooses.", 0.0, 1.0, kind=float
            ),
            Parameter("tau0", 0.75, "Similarity threshold at lambda = 0.", -1.0, 1.0, reconstructed=True),
            Parameter("tau_slope", 0.20, "Rise of the threshold with lambda.", 0.0, 2.0, reconstructed=True),
            Parameter(
                "theta0", 4.0, "Largest size of a small object in tokens, at lambda = 0.", 0.0, reconstructed=True
            ),
            Parameter("theta_slope", 1.0, "theta = theta0 * (1 + theta_slope*lambda).", 0.0, reconstructed=True),
            Parameter("beta", 1.0, "Weight of the text in the structure map (Eq. 5).", 0.0, reconstructed=True),
            Parameter(
                "connectivity",
                "8",
                "Raster predecessors of the 8-neighbourhood or of the 4-neighbourhood.",
                choices=("8", "4"),
                reconstructed=True,
            ),
            Parameter("scale", True, "Whether the streams are scaled by 1 - lambda and lambda, as published."),
            Parameter(
                "weight_floor",
                0.02,
                "A stream of smaller weight gives its budget to the other; one of weight 0 always does.",
                0.0,
                0.5,
                reconstructed=True,
            ),
            Parameter("rho_min", 0.02, "Smallest ratio that the router may choose.", 0.0, 1.0, reconstructed=True),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, or clusters compete over all views.",
                choices=("view", "image"),
                reconstructed=True,
            ),
            Parameter(
                "router",
                "auto",
                "Who chooses lambda and rho: the router that comes with the model where there is one, or the rule.",
                choices=("auto", "rule"),
                reconstructed=True,
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=("reconstruction: constants that the paper leaves out",),
        deviations=(
            "The paper's router weights are not public: a router that comes with the model decides, or else a rule.",
            "tau, theta, beta, the neighbourhood, the regions, the border rule and the rounding are not in the paper.",
            "Similarity and structure are read from encoder features; outputs mix projected tokens.",
            "[CLS] attention is the mean over heads, over patches only.",
            "For a tower without [CLS], the attention that a patch receives stands in for that from [CLS].",
            "Too few clusters leave the rest of the budget to the route; a stream below the weight floor gets nothing.",
            "Without a similarity to the text, the text term of the structure map is off.",
            "Cells that fill up the route follow the nearest cell of the walk, the ones of higher structure first.",
            "Without the scaling of the streams the weight floor still closes one.",
            "The words by which the rule decides are more than those that the paper names.",
        ),
        version=3,
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Outputs in path order: semantic by descending importance, then geometric; per view, or over all views.

        Exactly `budget` outputs, unless one stream is closed and the other has too few tokens; without a budget the
        router chooses the ratio.

        Raises:
            MissingSignal: there is neither [CLS] attention nor attention received.
            InvalidGrid: an earlier stage dropped tokens.
        """
        total = len(tokens)
        if total != len(tokens.grid):
            raise InvalidGrid(
                f"dualcomp works on all {len(tokens.grid)} visual tokens, got {total} survivors; make it the first step"
            )
        routed = self._route(context)
        lam, reason = routed.lam, routed.reason
        if budget is None:
            rho = min(1.0, max(self.rho_min, routed.rho))
            count = min(total, max(1, round(total * rho)))
        else:
            count = self.checked_budget(tokens, budget)
            rho = count / total
        tau, theta = self.tau0 + self.tau_slope * lam, self.theta0 * (1 + self.theta_slope * lam)
        clusters = cluster(tokens.features, self._attention(tokens), tokens.grid, tau, self.connectivity)
        geometry = structure(tokens.features, tokens.grid)
        strength = self._strength(tokens, geometry)
        fusion = _Fusion(tokens, clusters, scores_numpy(geometry), strength, self, lam, theta)
        if self.per == "image":
            fusion.add(range(len(tokens.grid.views)), count)
        else:
            for view, quota in enumerate(split_evenly(count, [len(view) for view in tokens.grid.views])):
                fusion.add([view], quota)
        made = len(fusion.streams)
        semantic = fusion.streams.count(Stream.SEMANTIC) / made
        if Signal.TEXT_SIMILARITY not in tokens.signals:
            fusion.notes.append("the text term of the structure map is off: the model gives no similarity to the text")
        if closed := closed_stream(lam, self.weight_floor):
            fusion.notes.append(
                f"the {closed} stream is closed: its weight is below the floor of {self.weight_floor:g}"
            )
        if len(clusters.sizes) == total:
            fusion.notes.append(f"nothing was merged: no neighbours are more alike than tau = {tau:.2f}")
        if made < count:
            fusion.notes.append(f"{count - made} fewer outputs than the budget: the open stream has too few clusters")
        return Selection.merge(
            total,
            fusion.anchors,
            fusion.weights,
            scores=(1 - lam) * self._cluster_scores(tokens, clusters)
            + lam * scaled(tokens, torch.from_numpy(strength)),
            stream=[int(stream) for stream in fusion.streams],
            router=RouterDecision(
                lam=lam,
                rho=rho,
                shares={"semantic": semantic, "geometric": 1 - semantic},
                thresholds={"tau": tau, "theta_size": theta},
                margins=routed.margins,
                source="asked" if self.lam is not None else routed.source,
                rho_source=routed.source if budget is None else "asked",
                reason=reason,
            ),
            diagnostics={
                "clusters": len(clusters.sizes),
                "anchors": fusion.route_anchors,
                "regions": fusion.regions,
                "path": fusion.path,
                "notes": fusion.notes,
            },
        )

    def _route(self, context: Context) -> _Routed:
        """Lambda and rho, who chose them and why."""
        if self.router == "auto" and context.router is not None and context.text is not None:
            route = context.router.route(context.text)
            found = _Routed(route.lam, route.rho, "trained", "the model's trained router", route.margins)
        else:
            lam, reason = rule_router(context.question)
            found = _Routed(lam, rule_ratio(lam), "rule", reason, {})
        if self.lam is None:
            return found
        # Without a trained ratio the rule's follows from the lambda that was asked for.
        rho = found.rho if found.source == "trained" else rule_ratio(self.lam)
        return _Routed(self.lam, rho, found.source, "lambda was asked for", found.margins)

    def _attention(self, tokens: VisualTokens) -> NDArray[np.float64]:
        """[CLS] attention, mean over heads, summing to one over the patches of each view, float64 [tokens] (Eq. 2)."""
        mean: NDArray[np.float64] = self.seen(tokens).detach().double().mean(dim=0).cpu().numpy()
        sizes = np.diff(tokens.grid.starts)
        sums = np.repeat(np.add.reduceat(mean, tokens.grid.starts[:-1]), sizes)
        uniform = np.repeat(1 / sizes, sizes)
        share: NDArray[np.float64] = np.divide(mean, sums, out=uniform, where=sums > 0)
        return share

    def _strength(self, tokens: VisualTokens, geometry: torch.Tensor) -> NDArray[np.float32]:
        """S_str = norm(S_geo) * (1 + beta*norm(S_text)) in each view, float32 [tokens] (Eq. 5)."""
        strength = scaled(tokens, geometry)
        if Signal.TEXT_SIMILARITY in tokens.signals:
            strength = strength * (1 + np.float32(self.beta) * scaled(tokens, tokens.signals[Signal.TEXT_SIMILARITY]))
        return strength

    def _cluster_scores(self, tokens: VisualTokens, clusters: Clusters) -> NDArray[np.float32]:
        """The importance of each token's cluster, scaled to 0..1 in its view, float32 [tokens]."""
        return scaled(tokens, torch.from_numpy(clusters.importance[clusters.ids]))


def scaled(tokens: VisualTokens, values: torch.Tensor) -> NDArray[np.float32]:
    """Values scaled to 0..1 in each view, float32 [tokens]; zeros in a view where all are equal."""
    return scores_numpy(torch.cat([min_max(values[part]) for part in tokens.view_slices()]))


def closed_stream(lam: float, floor: float) -> str:
    """The stream that gets nothing because its weight is below the floor, or zero; "" where both are open.

    >>> closed_stream(0.0, 0.0), closed_stream(0.5, 0.02)
    ('geometric', '')
    """
    if lam < floor or lam == 0:
        return "geometric"
    return "semantic" if 1 - lam < floor or lam == 1 else ""


def split_streams(count: int, lam: float, clusters: int, floor: float) -> tuple[int, int]:
    """How many outputs are semantic and how many geometric.

    Args:
        count: Outputs to share out.
        lam: n_geo = round(lam*count).
        clusters: How many semantic outputs there can be; the surplus moves to the geometric stream where that is open.
        floor: A stream of smaller weight is closed.

    >>> split_streams(10, 0.2, 100, 0.02)
    (8, 2)
    >>> split_streams(10, 0.2, 5, 0.02)
    (5, 5)
    """
    closed = closed_stream(lam, floor)
    geometric = {"geometric": 0, "semantic": count}.get(closed, round(lam * count))
    semantic = min(count - geometric, clusters)
    return semantic, 0 if closed == "geometric" else count - semantic


@dataclass
class _Fusion:
    """Collects the outputs of both streams in reading order."""

    tokens: VisualTokens
    clusters: Clusters
    geometry: NDArray[np.float32]
    strength: NDArray[np.float32]
    strategy: DualComp
    lam: float
    theta: float
    anchors: list[int] = field(default_factory=list)
    weights: list[tuple[Any, Any]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    route_anchors: list[int] = field(default_factory=list)
    regions: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, views: range | list[int], count: int) -> None:
        """Add `count` outputs of these views, which lie next to each other."""
        grid = self.tokens.grid
        edges = np.searchsorted(self.clusters.first, [grid.starts[views[0]], grid.starts[views[-1] + 1]])
        first, last = int(edges[0]), int(edges[1])
        semantic, geometric = split_streams(count, self.lam, last - first, self.strategy.weight_floor)
        self._add_semantic(self.clusters.ranked(first, last)[:semantic])
        for view, share in zip(views, split_evenly(geometric, [len(grid.views[view]) for view in views]), strict=True):
            self._add_route(view, share)

    def _add_semantic(self, chosen: NDArray[np.int64]) -> None:
        factor = 1 - self.lam if self.strategy.scale else 1.0
        for one, members in zip(chosen, self.clusters.members(chosen), strict=True):
            anchor = int(self.clusters.most[one])
            self.anchors.append(anchor)
            self.streams.append(Stream.SEMANTIC)
            attention, importance = self.clusters.attention[members], self.clusters.importance[one]
            if len(members) <= self.theta:
                self.weights.append(([anchor], [factor]))
            elif importance > 0:
                self.weights.append((members, factor * attention / importance))
            else:
                self.weights.append((members, np.full(len(members), factor / len(members))))

    def _add_route(self, view: int, count: int) -> None:
        start, shape = self.tokens.grid.starts[view], self.tokens.grid.views[view]
        part = slice(start, start + len(shape))
        size = (shape.rows, shape.cols)
        route = trace(self.geometry[part].reshape(size), self.strength[part].reshape(size), count) if count else EMPTY
        factor = self.lam if self.strategy.scale else 1.0
        for cell in route.path:
            self.anchors.append(start + cell)
            self.weights.append(([start + cell], [factor]))
            self.streams.append(Stream.GEOMETRIC)
        self.path.extend(start + cell for cell in route.path)
        self.route_anchors.extend(start + cell for cell in route.anchors)
        self.regions.append(list(route.regions))


EMPTY = Route((), (), (0, 0))
