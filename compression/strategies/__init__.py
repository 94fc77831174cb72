"""The catalogue: every strategy by name, in reading order."""

from __future__ import annotations

from compression.registry import Registry
from compression.strategies.cdpruner import CDPruner
from compression.strategies.divprune import DivPrune
from compression.strategies.dualcomp import DualComp
from compression.strategies.fastervlm import FasterVLM
from compression.strategies.fastv import FastV
from compression.strategies.flashvlm import FlashVLM
from compression.strategies.geollava8k import GeoLLaVA8K
from compression.strategies.identity import Identity
from compression.strategies.prumerge import PruMerge
from compression.strategies.prumerge_plus import PruMergePlus
from compression.strategies.random_subset import RandomSubset
from compression.strategies.trim import TRIM
from compression.strategies.uniform_grid import UniformGrid
from compression.strategies.visionzip import VisionZip
from compression.strategies.vispruner import VisPruner

CATALOGUE = Registry().register(
    Identity,
    DualComp,
    GeoLLaVA8K,
    VisionZip,
    PruMerge,
    PruMergePlus,
    FasterVLM,
    VisPruner,
    DivPrune,
    CDPruner,
    TRIM,
    FlashVLM,
    FastV,
    UniformGrid,
    RandomSubset,
)
"""The strategies of this package."""

__all__ = ["CATALOGUE"]
