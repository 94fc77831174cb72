"""From an image file and a question to the immutable record of what each strategy did."""

from analysis.errors import AnalysisError
from analysis.pipeline import Encoded, Inquiry, Outcome, compare, encode, execute, open_image
from analysis.recorder import Recorder
from analysis.retention import evidence_recall, jaccard
from analysis.run import Answer, Cost, ImageRef, ModelRef, Recording, Request, Run

__all__ = [
    "AnalysisError",
    "Answer",
    "Cost",
    "Encoded",
    "ImageRef",
    "Inquiry",
    "ModelRef",
    "Outcome",
    "Recorder",
    "Recording",
    "Request",
    "Run",
    "compare",
    "encode",
    "evidence_recall",
    "execute",
    "jaccard",
    "open_image",
]
