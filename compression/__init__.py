"""Visual tokens that never forget where they came from, and the strategies that reduce them."""

from compression.compressor import Budget, Compressor, Context, Parameter, Plan, Stage, Step, Strategy, StrategyInfo
from compression.decoder import Act, DecoderStrategy
from compression.errors import CompressionError
from compression.grid import Box, TokenGrid, View
from compression.layer import Heads, LayerState
from compression.registry import Registry
from compression.selection import Fate, RouterDecision, Selection, Stream
from compression.sight import Looked, LookingStrategy, Prospect, Sight, Turn
from compression.tokens import SIGNALS, Signal, SignalInfo, VisualTokens

__all__ = [
    "SIGNALS",
    "Act",
    "Box",
    "Budget",
    "CompressionError",
    "Compressor",
    "Context",
    "DecoderStrategy",
    "Fate",
    "Heads",
    "LayerState",
    "Looked",
    "LookingStrategy",
    "Parameter",
    "Plan",
    "Prospect",
    "Registry",
    "RouterDecision",
    "Selection",
    "Sight",
    "Signal",
    "SignalInfo",
    "Stage",
    "Step",
    "Strategy",
    "StrategyInfo",
    "Stream",
    "TokenGrid",
    "Turn",
    "View",
    "VisualTokens",
]
