"""The catalogue: every strategy by name, in reading order."""

from __future__ import annotations

from compression.registry import Registry
from compression.strategies.adaptinfer import AdaptInfer
from compression.strategies.apet import ApET
from compression.strategies.apet_stage import ApETStage
from compression.strategies.average_pool import AveragePool
from compression.strategies.cdpruner import CDPruner
from compression.strategies.covipal import CoViPAL
from compression.strategies.dart import DART
from compression.strategies.divprune import DivPrune
from compression.strategies.downsample import Downsample
from compression.strategies.dualcomp import DualComp
from compression.strategies.fastervlm import FasterVLM
from compression.strategies.fastkv import FastKV
from compression.strategies.fastv import FastV
from compression.strategies.flashsloth import FlashSloth
from compression.strategies.flashvlm import FlashVLM
from compression.strategies.geollava8k import GeoLLaVA8K
from compression.strategies.hired import HiRED
from compression.strategies.identity import Identity
from compression.strategies.lvlm_csp import LVLMCSP
from compression.strategies.prumerge import PruMerge
from compression.strategies.prumerge_plus import PruMergePlus
from compression.strategies.pyramiddrop import PyramidDrop
from compression.strategies.random_subset import RandomSubset
from compression.strategies.segpruner import SeGPruner
from compression.strategies.sparc import SPARC
from compression.strategies.sparsevlm import SparseVLM
from compression.strategies.tome import ToMe
from compression.strategies.trim import TRIM
from compression.strategies.uniform_grid import UniformGrid
from compression.strategies.vir import ViR
from compression.strategies.visiondrop import VisionDrop
from compression.strategies.visiondrop_stages import VisionDropStages
from compression.strategies.visionzip import VisionZip
from compression.strategies.vispruner import VisPruner
from compression.strategies.zoom import Zoom

CATALOGUE = Registry().register(
    Identity,
    DualComp,
    GeoLLaVA8K,
    VisionZip,
    VisionDrop,
    PruMerge,
    PruMergePlus,
    FasterVLM,
    VisPruner,
    HiRED,
    ApET,
    SeGPruner,
    DivPrune,
    CDPruner,
    TRIM,
    FlashVLM,
    ViR,
    FlashSloth,
    FastV,
    PyramidDrop,
    SparseVLM,
    DART,
    AdaptInfer,
    FastKV,
    VisionDropStages,
    ApETStage,
    CoViPAL,
    LVLMCSP,
    SPARC,
    Zoom,
    ToMe,
    Downsample,
    UniformGrid,
    AveragePool,
    RandomSubset,
)
"""The strategies of this package."""

__all__ = ["CATALOGUE"]
