"""VisionDrop: visual-only scores before and inside the language model; its stage after the encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compression.compressor import Parameter, StrategyInfo
from compression.strategies.visionzip import VisionZip


@dataclass(frozen=True)
class VisionDrop(VisionZip):
    """Keep the visual tokens most attended by [CLS] and fold the rest into contextual ones: the stage of the encoder.

    Score: attention[CLS, token] in the feature layer, summed over heads. The rule is VisionZip's, as in the released
    code: of a view's budget m, round(share*m) outputs are contextual and the others dominant, [CLS] counted among
    them; every max(1, floor(n/c))-th of the n tokens that remain is a target, every other one joins the target of
    highest key cosine, and the contextual token is target + mean(joined). What differs is the share: 6 of 48, where
    VisionZip has 10 of 64.
    Differs from the paper: its three stages inside the language model are another step, and the released setting is
    the plan visiondrop@48+visiondrop_stages@32; alone, the budget is the number of tokens after the encoder and not
    the mean over the layers. Any budget is split by one share; ties break by token index; merge=mean averages where
    the released code adds two means.
    Source: VisionDrop, AAAI 2026, arXiv 2506.22283, and its released code.
    """

    share: float = 6 / 48

    info: ClassVar[StrategyInfo] = replace(
        VisionZip.info,
        name="visiondrop",
        title="VisionDrop",
        paper="VisionDrop, AAAI 2026, arXiv 2506.22283",
        parameters=(
            Parameter("share", 6 / 48, "Share of the outputs that are contextual; released: 6 of 42 + 6.", 0.0, 1.0),
            *VisionZip.info.parameters[1:],
        ),
        labels=("encoder stage only: no reduction inside the language model",),
        alone=("encoder stage only: no reduction inside the language model",),
        deviations=(
            "The stages inside the language model are another strategy; the budget is met after the encoder.",
            "The contextual share of any budget is that of the released 42 + 6 tokens.",
            "Contextual tokens are target + mean(joined) as released, about twice the norm (merge=mean averages).",
            "With per=image the [CLS] of every view is kept first, as far as the dominant tokens reach.",
            "For a tower without [CLS], the attention received stands in, and a patch takes the place of [CLS].",
            "Ties break by token index.",
        ),
    )
