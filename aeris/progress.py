"""Progress bars: a widget where a notebook can show one, a line of text everywhere else."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm falls back on text, which is what is wanted, and would warn of it in the first output.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
