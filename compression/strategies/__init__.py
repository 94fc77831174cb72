"""The catalogue: every strategy by name, in reading order."""

from __future__ import annotations

from compression.registry import Registry
from compression.strategies.adaptinfer import AdaptInfer
from compression.strategies.covipal import CoViPAL
from compression.strategies.dart import DART
from compression.strategies.divprune import DivPrune
from compression.strategies.dualcomp import DualComp
from compression.strategies.fastkv import FastKV
from compression.strategies.fastv import FastV
from compression.strategies.geollava8k import GeoLLaVA8K
from compression.strategies.identity import Identity
from compression.strategies.pyramiddrop import PyramidDrop
from compression.strategies.random_subset import RandomSubset
from compression.strategies.sparsevlm import SparseVLM
from compression.strategies.uniform_grid import UniformGrid
from compression.strategies.visiondrop_stages import VisionDropStages
from compression.strategies.visionzip import VisionZip

CATALOGUE = Registry().register(
    Identity,
    DualComp,
    GeoLLaVA8K,
    VisionZip,
    DivPrune,
    FastV,
    PyramidDrop,
    SparseVLM,
    DART,
    AdaptInfer,
    FastKV,
    VisionDropStages,
    CoViPAL,
    UniformGrid,
    RandomSubset,
)
"""The strategies of this package."""

__all__ = ["CATALOGUE"]
