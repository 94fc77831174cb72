"""Attention as it is computed, reduced at once to what a map needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from analysis.errors import NothingRecorded
from analysis.run import Recording
from compression.backends.base import SequenceLayout
from compression.selection import Selection


class Recorder:
    """Keeps, per layer, the answer's and the question's attention to the visual tokens, head mean.

    A probe: the backend calls `attention` once per layer during one forward pass. Full maps of 32 layers and 3,000
    tokens
    take gigabytes; two rows per layer take kilobytes.

    >>> Recorder().finish(Selection.prune(2, [0, 1]))
    Traceback (most recent call last):
    ...
    analysis.errors.NothingRecorded: no attention was recorded; run the model with the recorder as its probe
    """

    def __init__(self) -> None:
        self._answer: list[NDArray[np.float32]] = []
        self._question: list[NDArray[np.float32]] = []
        self._layouts: list[SequenceLayout] = []

    def attention(self, layer: int, rows: Tensor, layout: SequenceLayout) -> None:
        """Take the rows of one layer, float [1 + words, length], the answer position first."""
        visual = rows[:, layout.visual].float().cpu().numpy()
        self._answer.append(visual[0])
        self._question.append(
            visual[1:].mean(axis=0) if len(visual) > 1 else np.full(visual.shape[1], np.nan, dtype=np.float32)
        )
        self._layouts.append(layout)

    def finish(self, entering: Selection) -> Recording:
        """The recording on the original grid.

        Args:
            entering: The selection whose outputs entered the language model.

        Raises:
            NothingRecorded: no layer was heard.
        """
        if not self._answer:
            raise NothingRecorded("no attention was recorded; run the model with the recorder as its probe")
        return Recording(
            answer=self._on_grid(self._answer, entering).astype(np.float16),
            question=self._on_grid(self._question, entering).astype(np.float16),
            answer_mass=np.array([row.sum() for row in self._answer], dtype=np.float32),
            question_mass=np.array([row.sum() for row in self._question], dtype=np.float32),
        )

    def _on_grid(self, rows: list[NDArray[np.float32]], entering: Selection) -> NDArray[np.float64]:
        outputs = np.full((len(rows), len(entering)), np.nan)
        for layer, (row, layout) in enumerate(zip(rows, self._layouts, strict=True)):
            if layout.lineage is None:
                outputs[layer, layout.outputs] = row
            else:
                outputs[layer] = layout.lineage.distribute(row)
        return entering.distribute(outputs)
