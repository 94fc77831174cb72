"""ToMe: tokens merged inside the vision encoder, block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compression.budget import split_proportionally
from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.merging import Merging
from compression.sight import Looked, LookingStrategy, Prospect, Sight
from compression.tokens import Signal


@dataclass(frozen=True)
class ToMe(LookingStrategy):
    """Merge the most similar tokens between attention and MLP of every block of the vision encoder.

    Score: none. In each block the tokens are dealt alternately into two sets; each of the first is linked to the one of
    the second whose keys (mean over heads) have the highest cosine; the r strongest links are merged by the mean
    weighted with sizes. The class token takes no part. A merged token is attended to in proportion to its size: log s
    is added to every logit of its key. The tokens after the feature layer go through the projector.
    The budget decides r: blocks merge r each (with `inflection` i, int(r(1-i)) in the first block, rising or falling
    linearly to the same above r in the last), at most half of what enters. The smallest r that leaves no more than the
    budget is taken, and what it merges too much is given back by the last blocks. Several views share the budget by
    their sizes. What half in each block cannot reach is refused.
    A map shows which tokens were merged into which, with equal weights: members and their number. What each contributed
    also depends on the blocks that it passed before it was merged.
    Differs from the paper: the user names the budget, not r. Outputs are in raster order of the token that took the
    others, where the released code leaves those of the two sets one behind the other: its classifier has no order, a
    language model has. Padding of a tile is never merged.
    Source: Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, arXiv:2210.09461, released code.
    """

    inflection: float = 0.0
    proportional: bool = True

    reads_question: ClassVar[bool] = False
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="tome",
        title="ToMe",
        paper="Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, arXiv:2210.09461",
        stage=Stage.ENCODING,
        needs=frozenset({Signal.ENCODER_BLOCKS}),
        reduces="merges",
        parameters=(
            Parameter(
                "inflection",
                0.0,
                "How the tokens merged change over the blocks: 0 constant, 1 rising from none, -1 falling to none.",
                minimum=-1.0,
                maximum=1.0,
            ),
            Parameter("proportional", True, "Whether merged tokens are attended to in proportion to their size."),
        ),
        deviations=(
            "The user names the budget; the tokens merged in each block follow from it.",
            "Outputs are in raster order of the token that took the others.",
            "Padding of a tile is never merged.",
        ),
    )

    def lowest(self, prospect: Prospect) -> int:
        """What is left where every block merges as much as it can."""
        return sum(self._fewest(tokens, prospect.blocks) for tokens in prospect.views)

    def unreachable(self, prospect: Prospect, budget: int, lowest: int) -> str:
        """Why a budget cannot be reached, in a sentence."""
        return (
            f"tome cannot reach {budget} visual tokens: a block merges at most half of its tokens, and "
            f"{prospect.blocks} blocks leave at least {lowest} of {prospect.total}; use at least {lowest}"
        )

    def look(self, sight: Sight, budget: int | None, context: Context) -> Looked:
        """Encode the image with as many merges as leave exactly the budget."""
        prospect = sight.prospect
        count = self.check(prospect, budget)
        shares = self._shares(count, prospect)
        reductions = tuple(
            tuple(self.reductions(tokens, share, prospect.blocks))
            for tokens, share in zip(prospect.views, shares, strict=True)
        )
        tokens, selection = sight.encode_merged(Merging(reductions, self.proportional))
        return Looked(tokens, replace(selection, diagnostics={"merged per block": [list(one) for one in reductions]}))

    def reductions(self, tokens: int, budget: int, blocks: int) -> list[int]:
        """How many tokens each block merges away so that exactly `budget` of `tokens` are left.

        >>> ToMe().reductions(576, 192, 24)[:3], sum(ToMe().reductions(576, 192, 24))
        ([16, 16, 16], 384)
        >>> ToMe().reductions(16, 6, 3)
        [4, 4, 2]

        Args:
            budget: At least what is left where every block merges as much as it can.
        """
        low, high = 0, _most(tokens, blocks)
        while low < high:  # the smallest r that leaves no more than the budget
            middle = (low + high) // 2
            if tokens - sum(self._capped(tokens, middle, blocks)) > budget:
                low = middle + 1
            else:
                high = middle
        counts = self._capped(tokens, low, blocks)
        surplus = budget - (tokens - sum(counts))
        for block in reversed(range(blocks)):
            back = min(surplus, counts[block])
            counts[block] -= back
            surplus -= back
        return counts

    def schedule(self, r: int, blocks: int) -> list[int]:
        """Tokens to merge in each block, without regard to how many there are, as in the released `parse_r`."""
        first = int(r * (1 - self.inflection))
        step = (2 * r - 2 * first) / max(1, blocks - 1)
        return [int(first + step * block) for block in range(blocks)]

    def _capped(self, tokens: int, r: int, blocks: int) -> list[int]:
        """The schedule, at most half of what enters each block."""
        counts = []
        for wanted in self.schedule(r, blocks):
            counts.append(min(wanted, tokens // 2))
            tokens -= counts[-1]
        return counts

    def _fewest(self, tokens: int, blocks: int) -> int:
        return tokens - sum(self._capped(tokens, _most(tokens, blocks), blocks))

    def _shares(self, budget: int, prospect: Prospect) -> list[int]:
        """The budget of each view: by their sizes, and none below what it can reach."""
        fewest = [self._fewest(tokens, prospect.blocks) for tokens in prospect.views]
        shares = split_proportionally(budget, prospect.views)
        lacking = [max(0, least - share) for least, share in zip(fewest, shares, strict=True)]
        shares = [share + more for share, more in zip(shares, lacking, strict=True)]
        for _ in range(sum(lacking)):  # taken from the view that has most to spare, the first of equals
            spare = [share - least for share, least in zip(shares, fewest, strict=True)]
            shares[spare.index(max(spare))] -= 1
        return shares


def _most(tokens: int, blocks: int) -> int:
    """An r at which every block with any merging in its schedule merges half of its tokens."""
    return tokens * max(1, blocks)
