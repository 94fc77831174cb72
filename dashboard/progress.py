"""Between a job and the pipeline: what is asked of it, and what it says on the way."""

from __future__ import annotations

import time
from pathlib import Path

from analysis.pipeline import Inquiry
from storage import Comparison, Store

_WRITE_SECONDS = 0.15  # between two progress notes


class Notes:
    """Progress of one job, written when the words change and otherwise not too often."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.store, self.job_id = store, job_id
        self._words = ""
        self._written = 0.0

    def __call__(self, words: str, share: float) -> None:
        """Note what is being done, and the share that is done, 0 to 1."""
        now = time.monotonic()
        if words == self._words and now - self._written < _WRITE_SECONDS:
            return
        self._words, self._written = words, now
        self.store.update_job(self.job_id, progress=share, message=words)


def inquiry_of(comparison: Comparison, path: Path) -> Inquiry:
    """What a stored comparison asked, with the image at `path`."""
    return Inquiry(
        path=path,
        image=comparison.image,
        question=comparison.question,
        choices=comparison.choices,
        expected=comparison.expected,
        evidence=comparison.evidence,
        family=comparison.family,
        task=comparison.task,
    )
