"""Zoom: an overview, then box inside box at full resolution until the model is sure; it stands for zooming agents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.grid import Box
from compression.sight import Looked, Prospect, Sight, Turn
from compression.tokens import Signal, VisualTokens
from compression.zooming.boxes import Finding, bounds
from compression.zooming.lens import Lens, Reply, joined
from compression.zooming.policy import rule
from compression.zooming.search import Search, attended, writes, written
from compression.zooming.strategy import BOXES, LABEL, OVERVIEW, SHARE, ZoomStrategy, looked, names, overview_turn

MOST_ZOOMS = 3
MOST_REJECTED = 3
"""Boxes of one turn that are recorded as rejected before the zoom ends."""


@dataclass(frozen=True)
class Zoom(ZoomStrategy):
    """Answer on an overview, and look closer at one box inside the other until the model is sure.

    Score: none. A fixed policy in place of a trained agent. The model answers on the overview. As long as it is less
    sure than the threshold, the most promising box is looked at: it must lie inside the previous one as it was shown,
    and one with a side below 28 pixels is expanded around its centre. Its crop, always of the original image, joins
    what the model is shown, and the model answers again. The zoom ends when the model is sure, after 3 boxes, when no
    box is left, or when the next crop does not fit the budget.
    Differs from the paper: GeoEyes is a model trained by reinforcement to call a zoom tool for up to 5 turns; its
    rewards for a box inside the previous one and for stopping early are fixed rules here, the model is asked for boxes
    of the last picture only, and boxes come from attention where the model cannot write them (as in sparc).
    Source: GeoEyes, arXiv 2602.14201, and the tool of its environment, DeepEyes.
    """

    boxes: str = "auto"
    overview: str = "256"
    sure: float = 0.9
    zooms: int = MOST_ZOOMS
    share: float = 0.3

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="zoom",
        title="Zoom",
        paper="GeoEyes, arXiv 2602.14201",
        stage=Stage.ZOOM,
        needs=frozenset({Signal.CROPS}),
        reduces="encodes fewer",
        adaptive=True,
        identity_at_full=False,
        parameters=(
            BOXES,
            OVERVIEW,
            Parameter("sure", 0.9, "Probability of the answer from which the zoom ends.", 0.0, 1.0, reconstructed=True),
            Parameter("zooms", MOST_ZOOMS, "Most boxes that are looked at.", 1, 5, reconstructed=True),
            SHARE,
        ),
        labels=("reconstruction: a fixed policy in place of the trained agent", LABEL),
        deviations=(
            "A fixed policy in place of the trained agent: box inside box, at least 28 pixels a side, at most 3 crops.",
            "The agent decides itself when to answer; here the probability of the answer decides.",
            "Boxes come from attention where the model cannot write them.",
        ),
    )

    def look(self, sight: Sight, budget: int | None, context: Context) -> Looked:
        """Zoom in as far as the policy and the budget let it."""
        prospect = sight.prospect
        room, lens = self.check(prospect, budget), sight.lens
        way = _Way(lens, room, prospect)
        way.show(lens.overview(self.side(prospect)))
        reply = lens.ask(way.tokens)
        way.turns.append(overview_turn(prospect, len(way.tokens), reply))
        for zoomed in range(1, self.zooms + 1):
            if reply.confidence >= self.sure:
                way.notices.append(
                    f"The zoom ended: the model gave its answer a probability of {reply.confidence:.2f}."
                )
                break
            if not way.zoom_in(self._places(way, reply, context), reply.answer):
                way.notices.append("The zoom ended: there was no box left to look at.")
                break
            if zoomed < self.zooms:
                reply = lens.ask(way.tokens)
                way.turns[-1] = replace(way.turns[-1], after=reply.answer)
        return looked(lens, way.tokens, way.turns, way.notices, way.frames)

    def _places(self, way: _Way, reply: Reply, context: Context) -> list[Finding]:
        """Where to look inside what was shown last."""
        how = Search(self.boxes, 1, 0.0, self.share, 0.5)
        if writes(way.lens, how):
            found = written(way.lens, way.latest, how, context.question, context.seed)
        else:
            last = joined(way.latest)
            found = attended(way.lens, replace(reply, looked=reply.looked[-len(last) :]), last.grid, how)
        way.notices += found.notices
        return found.findings


@dataclass
class _Way:
    """A zoom as far as it came.

    Args:
        lens: The image and the model.
        room: Visual tokens that may be shown at once.
        prospect: Of the image.
        pictures: What is shown: the overview, then the crops.
        latest: What was added last.
        frames: What the crops show.
        box: What the last crop showed, or the whole image: the next box must lie inside it.
    """

    lens: Lens
    room: int
    prospect: Prospect
    pictures: list[VisualTokens] = field(default_factory=list)
    latest: list[VisualTokens] = field(default_factory=list)
    frames: list[Box] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        height, width = self.prospect.image_size
        self.box: Box = (0.0, 0.0, float(width), float(height))

    def show(self, pictures: list[VisualTokens]) -> None:
        """Add to what is shown."""
        self.pictures += pictures
        self.latest = pictures
        self.tokens = joined(self.pictures)

    def zoom_in(self, findings: list[Finding], before: str) -> bool:
        """Look at the first box that the policy and the budget allow; whether there was one.

        Every box that was judged is a turn.
        """
        for finding in findings[:MOST_REJECTED]:
            ruling = rule(finding.box, self.box)
            box, reason, frames = ruling.box or finding.box, ruling.reason, []
            if ruling.box is not None:
                frames = [frame for frame in self.lens.frames(box) if frame not in self.frames]
                if not frames:
                    reason = "is shown already at full resolution"
                elif len(self.tokens) + sum(self.lens.count(frame) for frame in frames) > self.room:
                    reason, frames = "does not fit the budget", []
            crops = [self.lens.crop(frame) for frame in frames]
            self.turns.append(
                Turn(
                    len(self.turns) + 1,
                    box,
                    view=names(crops),
                    confidence=finding.confidence,
                    tokens=sum(len(one) for one in crops),
                    before=before,
                    is_accepted=bool(crops),
                    reason=reason,
                )
            )
            if crops:
                self.frames += frames
                self.box = bounds(frames)
                self.show(crops)
                return True
        return False
