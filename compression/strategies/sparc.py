"""SPARC: search where to look at low resolution, then answer with the overview and full-resolution crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.grid import Box
from compression.sight import Looked, Prospect, Sight, Turn
from compression.tokens import Signal, VisualTokens
from compression.zooming.boxes import Finding
from compression.zooming.lens import Lens, joined
from compression.zooming.search import Search, search
from compression.zooming.strategy import (
    BOXES,
    LABEL,
    MOST_CROPS,
    OVERVIEW,
    SHARE,
    ZoomStrategy,
    looked,
    names,
    overview_size,
    overview_turn,
)

MOST_TILES = 3


@dataclass(frozen=True)
class SPARC(ZoomStrategy):
    """Ask where to look at low resolution, then answer with the overview and crops of those places at full resolution.

    Score: none. Stage 1: the image at low resolution and the question; the model is told not to answer but to write
    boxes of what is relevant. It is asked n times by sampling, and the boxes are merged by weighted boxes fusion: the
    boxes of a cluster are averaged, and its confidence is the share of attempts that saw it. Stage 2: the overview, the
    crops of the most confident boxes at full resolution, at most 6 and as many as the budget has room for, and the
    question, in one pass. Without a box the overview is all there is. A model that writes no boxes is asked once, and
    the boxes are those around the connected regions of its strongest tokens: the fewest that hold a share of the
    attention of the question's words, mean over the second half of the layers.
    Differs from the paper: no code is released; the wording of the request is ours, crops stand in reading order, an
    image of more than 8 pixels per overview pixel (2 for the embedded model) is searched on 2 x 2 or 3 x 3 overviews,
    and boxes come from attention where the model cannot write them. A crop is what a model reads best of a box: a
    square, or cells that it knows by name.
    Source: SPARC, ICML 2026, arXiv 2602.06566; weighted boxes fusion, arXiv 1910.13302.
    """

    boxes: str = "auto"
    overview: str = "256"
    tiles: int = 0
    rollouts: int = 8
    temperature: float = 0.7
    threshold: float = 0.5
    share: float = 0.3
    crops: int = MOST_CROPS

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="sparc",
        title="SPARC",
        paper="SPARC, ICML 2026, arXiv 2602.06566",
        stage=Stage.ZOOM,
        needs=frozenset({Signal.CROPS}),
        reduces="encodes fewer",
        adaptive=True,
        identity_at_full=False,
        parameters=(
            BOXES,
            OVERVIEW,
            Parameter(
                "tiles",
                0,
                "Overviews along each side of the image that are searched; 0 leaves it to size and model.",
                0,
                MOST_TILES,
                reconstructed=True,
            ),
            Parameter("rollouts", 8, "How often a model that writes boxes is asked (n).", 1, 32),
            Parameter("temperature", 0.7, "Of the sampling; a single attempt takes the likeliest.", 0.0, 2.0),
            Parameter("threshold", 0.5, "Overlap above which boxes are fused.", 0.0, 0.99),
            SHARE,
            Parameter("crops", MOST_CROPS, "Most crops beside the overview.", 1, 16),
        ),
        labels=(LABEL,),
        deviations=(
            "No code is released; the request for boxes is worded here, and crops stand in reading order.",
            "Very large images are searched on 2 x 2 or 3 x 3 overviews.",
            "Boxes come from attention where the model cannot write them; they are not sampled then.",
            "A crop is the square or the cells that the model reads best of a box.",
        ),
    )

    def look(self, sight: Sight, budget: int | None, context: Context) -> Looked:
        """Search, and put the crops that the budget has room for beside the overview."""
        prospect = sight.prospect
        room, lens = self.check(prospect, budget), sight.lens
        pictures = lens.overview(int(self.overview), self._tiles(prospect))
        how = Search(self.boxes, self.rollouts, self.temperature, self.share, self.threshold)
        found = search(lens, pictures, how, context.question, context.seed)
        answer = found.reply.answer if found.reply else ""
        turns = [overview_turn(prospect, sum(len(one) for one in pictures), found.reply)]
        overview = lens.overview(self.side(prospect))
        crops, more = self._crops(lens, found.findings, room - len(joined(overview)), answer)
        notices = list(found.notices)
        if not found.findings:
            notices.append("No place to look at was found: the overview is all that the model sees.")
        elif not crops:
            notices.append(f"Nothing was added to the overview: the best box {more[0].reason}.")
        in_order = sorted(crops, key=lambda frame: (frame[1], frame[0]))
        shown = joined([*overview, *(crops[frame] for frame in in_order)])
        return looked(lens, shown, [*turns, *more], notices, in_order)

    def _tiles(self, prospect: Prospect) -> int:
        """Overviews along each side."""
        if self.tiles:
            return self.tiles
        reduction = max(prospect.image_size) / max(overview_size(prospect, int(self.overview)))
        return min(MOST_TILES, math.ceil(reduction / prospect.most_reduced))

    def _crops(
        self, lens: Lens, findings: list[Finding], room: int, before: str
    ) -> tuple[dict[Box, VisualTokens], list[Turn]]:
        """The crops by frame, those of the most confident findings, and a turn for each finding."""
        crops: dict[Box, VisualTokens] = {}
        turns: list[Turn] = []
        for finding in findings[: max(self.crops, MOST_CROPS)]:
            made: list[VisualTokens] = []
            reason = "is shown already"
            for frame in lens.frames(finding.box):
                if frame in crops:
                    continue
                if len(crops) == self.crops:
                    reason = f"{self.crops} {'crop is' if self.crops == 1 else 'crops are'} the most"
                    break
                if lens.count(frame) > room:
                    reason = "does not fit the budget"
                    break
                crops[frame] = lens.crop(frame)
                room -= len(crops[frame])
                made.append(crops[frame])
            turns.append(
                Turn(
                    len(turns) + 2,
                    finding.box,
                    view=names(made),
                    confidence=finding.confidence,
                    tokens=sum(len(one) for one in made),
                    before=before,
                    is_accepted=bool(made),
                    reason="" if made else reason,
                )
            )
        return crops, turns
