"""DualComp: two streams, object semantics and scene geometry, mixed by a router.

`router` decides the mixture, `scsa` makes the semantic stream, `igsr` the geometric one, `dualcomp` fuses them.
"""

from __future__ import annotations

from compression.strategies.dualcomp.dualcomp import DualComp
from compression.strategies.dualcomp.router import LearnedRouter, rule_ratio, rule_router

__all__ = ["DualComp", "LearnedRouter", "rule_ratio", "rule_router"]
