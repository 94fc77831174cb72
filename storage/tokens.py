"""One run's visual tokens as a table, from the stored arrays."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from compression.selection import Fate
from storage.views import TOKEN_COLUMNS

if TYPE_CHECKING:
    from storage.store import Store

FATES = np.array([fate.name.lower() for fate in sorted(Fate)])


def tokens_table(store: Store, run_id: str) -> pd.DataFrame:
    """The rows of `v_tokens` of one run: one per visual token, in the model's order.

    Columns: `run`, `token` (from 0), `row` and `col` inside the `view` (the view's name), `left, top, right, bottom` in
    original pixels, `fate` ("kept", "merged", "dropped"), `target` (the token that took it; -1 for none), `score` (NaN
    where the method has none) and `attention`: of the answer position, mean over the layers in which the token was
    there, NaN where it never was or attention was not recorded.

    Raises:
        RunNotFound: there is no such run.
    """
    run = store.get(run_id)
    total, selection, grid = run.tokens_encoded, run.selection, run.grid
    rows, cols = grid.rows_cols()
    boxes = grid.boxes()
    attention = np.full(total, np.nan)
    if run.recording.answer is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of a token that was in no layer is NaN
            attention = np.nanmean(run.recording.answer.astype(np.float64), axis=0)
    columns = {
        "run": np.full(total, run.id),
        "token": np.arange(total),
        "row": rows,
        "col": cols,
        "view": np.array([view.name for view in grid.views])[grid.view_indices()],
        "left": boxes[:, 0],
        "top": boxes[:, 1],
        "right": boxes[:, 2],
        "bottom": boxes[:, 3],
        "fate": FATES[selection.fate],
        "target": selection.target,
        "score": np.full(total, np.nan) if selection.scores is None else selection.scores.astype(np.float64),
        "attention": attention,
    }
    return pd.DataFrame(columns, columns=list(TOKEN_COLUMNS))
