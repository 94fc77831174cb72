"""Strategies that look at the image themselves: what they may ask for, and what they leave.

Most strategies find the visual tokens of the image as the model encodes it, one encoding for all of them. An *encoding*
(the image at a lower resolution, merging inside the encoder) or a *zoom* (an overview, then parts of the image) changes
what is encoded. It is given a `Sight` of the image instead of tokens, and returns what it `Looked` at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from compression.compressor import Budget, Context, Plan, Stage, Step, Strategy, StrategyInfo
from compression.errors import InvalidBudget, InvalidStrategyText, NeedsSight
from compression.grid import Box
from compression.merging import Merging
from compression.selection import Selection
from compression.tokens import VisualTokens
from compression.zooming.lens import Lens

Size = tuple[int, int]
"""(height, width) in pixels."""
LOOKS = frozenset({Stage.ENCODING, Stage.ZOOM})
"""Stages whose strategies look at the image themselves."""


@dataclass(frozen=True)
class Prospect:
    """What a model tells of an image before it reads any of it.

    Args:
        image_size: (height, width) of the original.
        views: Visual tokens of each view when the image is read whole.
        largest: (height, width), in the image's shape, above which the model sees nothing more.
        count: Visual tokens of a copy of the image that was brought to a (height, width).
        blocks: Blocks of the vision tower between which tokens can be merged; 0 where they cannot be.
        beside: Longest side in pixels of an overview that can stand beside parts of the image; None for any.
        most_reduced: Pixels of the image per pixel of an overview above which a zoom searches several overviews.
    """

    image_size: Size
    views: tuple[int, ...]
    largest: Size
    count: Callable[[Size], int]
    blocks: int = 0
    beside: int | None = None
    most_reduced: float = 8.0

    @property
    def total(self) -> int:
        """Visual tokens of the image when it is read whole: what budgets are counted of."""
        return sum(self.views)


class Sight(Protocol):
    """One image and one model, as far as a strategy may use them. Nothing of files.

    All boxes are in original pixels, those of the tokens' grids included.
    """

    @property
    def prospect(self) -> Prospect:
        """What is known without reading."""

    def encode(self, box: Box | None = None, size: Size | None = None) -> VisualTokens:
        """Visual tokens of the image or of a part of it.

        Args:
            box: The part; None for all of it. It is read as an image of its own.
            size: (height, width) to which it is brought before; nothing is enlarged after that. None leaves the size
                to the model.
        """

    def encode_merged(self, merging: Merging) -> tuple[VisualTokens, Selection]:
        """The image as a whole, with tokens merged inside the encoder.

        Returns:
            The tokens of the whole grid, each with the features of the merged token that it is a part of, and which
            those are.

        Raises:
            MissingSignal: the model's tower cannot do it.
        """

    @property
    def lens(self) -> Lens:
        """For a zoom: parts of the image beside each other, and questions about them.

        Raises:
            MissingSignal: the model cannot be shown several pictures.
        """


@dataclass(frozen=True)
class Turn:
    """One turn of a zoom, for the record.

    Args:
        number: From 1.
        box: Where it looked, in original pixels.
        view: Name of the view that came of it, "" where it was not kept.
        confidence: What made it look there, or how sure the model was; None where the policy has no such number.
        tokens: Visual tokens that the turn spent.
        before, after: The model's answer, "" where it was not asked.
        is_accepted: Whether what it saw was kept.
        reason: Why, in words.
    """

    number: int
    box: Box
    view: str = ""
    confidence: float | None = None
    tokens: int = 0
    before: str = ""
    after: str = ""
    is_accepted: bool = True
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Looked:
    """What a strategy looked at.

    Args:
        tokens: Visual tokens over a grid of their own, whose boxes are in original pixels.
        selection: Over that grid: what enters the language model.
        turns: What happened on the way.
        crops: Parts of the image that a zoom shows at full resolution, in original pixels.
    """

    tokens: VisualTokens
    selection: Selection
    turns: tuple[Turn, ...] = ()
    crops: tuple[Box, ...] = ()

    def rest(self, plan: Plan, total: int) -> Plan:
        """What is left of a plan for the model: the decision as it was made, then the later steps.

        A later step is asked for no more tokens than there are.

        Args:
            plan: Its first step looked.
            total: Visual tokens of the image when it is read whole, of which ratios are meant.
        """
        later = []
        for step in plan.steps[1:]:
            count = step.budget.tokens(total)
            later.append(replace(step, budget=Budget(count=count and min(count, len(self.selection)))))
        return Plan((Step(Decided(self.selection), Budget()), *later))


class LookingStrategy(Strategy):
    """A strategy that reads the image itself.

    Attributes:
        reads_question: Whether where it looks depends on the question; else one look serves all questions about an
            image.
    """

    reads_question: ClassVar[bool] = True

    def look(self, sight: Sight, budget: int | None, context: Context) -> Looked:
        """Look, and decide what enters the language model.

        Args:
            sight: The image.
            budget: Number of outputs, 1..total; None only where the strategy is adaptive.
            context: The question, the seed; no layer.

        Raises:
            InvalidBudget: as `check` says; nothing was encoded.
            MissingSignal: the model cannot do what is needed.
        """
        raise NotImplementedError

    def lowest(self, prospect: Prospect) -> int:
        """The smallest budget in visual tokens that can be reached on an image."""
        return 1

    def check(self, prospect: Prospect, budget: int | None) -> int:
        """The budget when it can be reached, before anything is read.

        Raises:
            InvalidBudget: it is outside 1..total, missing, or below `lowest`, which the error names.
        """
        if budget is None:
            raise InvalidBudget(f"{self.info.name} needs a budget; write {self.info.name}@0.25 or {self.info.name}@64")
        lowest = self.lowest(prospect)
        if not 1 <= budget <= prospect.total:
            raise InvalidBudget(
                f"budget must be 1..{prospect.total} visual tokens, got {budget}; write a count up to "
                f"{prospect.total} or a retention ratio up to 1.0",
                lowest=lowest,
            )
        if budget < lowest:
            raise InvalidBudget(self.unreachable(prospect, budget, lowest), lowest=lowest)
        return budget

    def unreachable(self, prospect: Prospect, budget: int, lowest: int) -> str:
        """Why a budget cannot be reached, in a sentence."""
        return (
            f"{self.info.name} cannot reach {budget} of {prospect.total} visual tokens on this image; use at least "
            f"{lowest}"
        )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Not possible: the strategy needs the image.

        Raises:
            NeedsSight: always.
        """
        raise NeedsSight(
            f"{self.info.name} reads the image itself and cannot act on {len(tokens)} visual tokens; give it a "
            "sight of the image with look(), or let the pipeline run it"
        )


@dataclass(frozen=True)
class Decided:
    """A decision that was made while looking, as a step before the language model."""

    selection: Selection

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="decided",
        title="Decided",
        paper="",
        stage=Stage.ENCODER,
        needs=frozenset(),
        reduces="prunes and merges",
        adaptive=True,
    )

    @property
    def parameters(self) -> Mapping[str, bool | int | float | str]:
        """None."""
        return {}

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """The decision."""
        return self.selection


def as_it_is(count: int) -> Plan:
    """The plan that leaves `count` visual tokens as they are."""
    return Plan((Step(Decided(Selection.prune(count, np.arange(count))), Budget()),))


def looking(plan: Plan) -> LookingStrategy | None:
    """The strategy of a plan that looks at the image itself, its first step; None where the shared encoding serves.

    Raises:
        InvalidStrategyText: it does not say how it looks.
    """
    first = plan.steps[0]
    if first.stage not in LOOKS:
        return None
    if not isinstance(first.compressor, LookingStrategy):
        name = first.compressor.info.name
        raise InvalidStrategyText(f"{name} reads the image itself but cannot look; derive it from LookingStrategy")
    return first.compressor
