"""VisionDrop: visual-only scores before and inside the language model; its stage after the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.selection import Selection
from compression.strategies.visionzip import VisionZip
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class VisionDrop(Strategy):
    """Keep the visual tokens most attended by [CLS] and fold the rest into contextual ones: the stage of the encoder.

    Score: attention[CLS, token] in the feature layer, summed over heads. The rule is VisionZip's, as in the released
    code: of a view's budget m, round(share*m) outputs are contextual and the others dominant, [CLS] counted among
    them; every max(1, floor(n/c))-th of the n tokens that remain is a target, every other one joins the target of
    highest key cosine, and the contextual token is target + mean(joined). What differs is the share: 6 of 48, where
    VisionZip has 10 of 64.
    Differs from the paper: its three stages inside the language model are not part of this step, so the budget is the
    number of tokens after the encoder and not the mean over the layers. Any budget is split by one share; ties break
    by token index; merge=mean averages where the released code adds two means.
    Source: VisionDrop, AAAI 2026, arXiv 2506.22283, and its released code.
    """

    share: float = 6 / 48
    merge: str = "sum"
    cls: bool = True
    per: str = "view"

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="visiondrop",
        title="VisionDrop",
        paper="VisionDrop, AAAI 2026, arXiv 2506.22283",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_ATTENTION, Signal.KEYS, Signal.CLS_FEATURE}),
        reduces="prunes and merges",
        acts_on="encoder",
        identity_at_full=False,
        own_order=True,
        score="attention from [CLS], summed over heads",
        parameters=(
            Parameter("share", 6 / 48, "Share of the outputs that are contextual; released: 6 of 42 + 6.", 0.0, 1.0),
            Parameter(
                "merge",
                "sum",
                "Contextual token: target + mean(joined) as released, about twice the norm, or their plain mean.",
                choices=("sum", "mean"),
            ),
            Parameter("cls", True, "Whether [CLS] is kept as a dominant token, as released; it counts in the budget."),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, or all views compete.",
                choices=("view", "image"),
            ),
        ),
        labels=("encoder stage only: no reduction inside the language model",),
        deviations=(
            "The stages inside the language model are left out; the budget is met after the encoder.",
            "The contextual share of any budget is that of the released 42 + 6 tokens.",
            "Contextual tokens are target + mean(joined) as released, about twice the norm (merge=mean averages).",
            "With per=image the [CLS] of every view is kept first, as far as the dominant tokens reach.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs: per view [CLS] (without area), dominant patches in raster order, contextual tokens.

        Raises:
            MissingSignal: attention, keys or the [CLS] feature are missing.
        """
        count = self.checked_budget(tokens, budget)
        for signal in (Signal.CLS_ATTENTION, Signal.KEYS, Signal.CLS_FEATURE):
            self.signal(tokens, signal)  # named here, so that an error does not speak of VisionZip
        rule = VisionZip(share=self.share, merge=self.merge, cls=self.cls, per=self.per)
        return rule.compress(tokens, count, context)
