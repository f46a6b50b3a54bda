"""Flatness: whether a rank histogram is uneven by more than chance, and in which way.

With frequencies f_i of k = M + 1 ranks in n independent cases, n k Σ (f_i − 1/k)² is Pearson's χ² with k − 1 degrees of freedom, and so
are its parts along orthonormal vectors (Jolliffe & Primo 2008, https://doi.org/10.1175/2007MWR2219.1): *bias*, along the straight line,
and *convexity*, along the parabola, each with one degree.

Cells are not independent, and nobody knows how many would be. So the unit is the *block*: the histogram of all cells, by area, at
successive initial times that share weather. What is assumed is that blocks are independent and alike, and nothing about cells. Their
scatter then tells how much chance there is:

- Bias and convexity of a block are averages over the globe, hence nearly normal, and the mean of B blocks is judged by Student's t.
- All ranks together: B Σ (f̄_i − 1/k)² / tr S, S being the covariance of the blocks' frequencies, has about the distribution F with ν and
  ν (B − 1) degrees of freedom, ν = tr² Σ / tr Σ² (Box 1954, https://doi.org/10.1214/aoms/1177728786; as the correction of Rao & Scott 1984,
  https://doi.org/10.1214/aos/1176346391, for clustered samples). tr² Σ and tr Σ² are estimated without bias (Bai & Saranadasa 1996).
- The blocks scatter as those of n = B (1 − 1/k) / tr S independent cases would, which are the cases that χ² and its parts are told for.

Seasons that differ from each other only widen the scatter. A test with many cases finds what does not matter: look at the size too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import f as f_distribution

from aeris.errors import DataError
from aeris.verification.calibration import need_members, ranks_of
from aeris.verification.pairing import LEAD, Gaps, Pairing, pair

FEWEST = 8
"""Blocks without which nothing is said."""

COMPONENTS = ("all", "bias", "convexity")


def rank_flatness(fc: xr.Dataset | str | Path, truth: xr.Dataset, block: int | None = None, *, gaps: Gaps = "refuse") -> xr.Dataset:
    """Tests whether rank histograms are flat, with an account of how cells and neighbouring initial times depend on each other.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        block: Successive initial times of a block; None takes the lead over their spacing, rounded up, since forecasts that overlap share
            weather. Initial times that fill no block, at the end, are left out.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it.

    Returns:
        Dataset, for each variable ``(prediction_timedelta, [level,] component)``, the components being ``"all"``, ``"bias"`` and
        ``"convexity"``: ``p_value.*``, two-sided; ``chi_square.*``, Pearson's statistic and its parts for the effective cases;
        ``departure.*``, what of it does not depend on their number: for ``"all"`` the root of k Σ (f_i − 1/k)², for the others signed,
        positive bias where the truth ranks too high (the members are too low) and positive convexity where it falls too often outside
        them (too narrow). ``effective_cases.*`` and ``blocks.*``, how many counted, ``(prediction_timedelta, [level])``. NaN with fewer
        than `FEWEST` blocks.

    Raises:
        DataError: Forecast and truth do not fit together, the forecast has one member only, or no lead has `FEWEST` blocks.
    """
    pairing = pair(fc, truth, gaps)
    need_members(pairing)
    lengths = _lengths(pairing, block)
    found: dict[str, xr.DataArray] = {}
    by_time = [ranks_of(pairing.at(time)) for time in pairing.times]
    for name in pairing.variables:
        frequencies = xr.concat([one[name] for one in by_time], "time").transpose("time", LEAD, ..., "rank")
        leads = [_judge(frequencies.isel({LEAD: lead}), int(length)) for lead, length in enumerate(lengths)]
        about = frequencies.attrs.get("long_name", name).removeprefix("relative frequency of the rank of the truth, ")
        for part, values in xr.concat(leads, frequencies[LEAD]).items():
            found[f"{part}.{name}"] = values.assign_attrs(units="1", long_name=f"{str(part).replace('_', ' ')} of the ranks, {about}")
    return xr.Dataset(found, attrs={"block": lengths.tolist()})


def _lengths(pairing: Pairing, block: int | None) -> np.ndarray:
    """Initial times of a block at each lead."""
    times = pairing.times
    spacing = np.median(np.diff(times)).astype("timedelta64[ns]") if len(times) > 1 else np.timedelta64(1, "D")
    own = np.maximum(1, np.ceil(pairing.leads / spacing)).astype(int)
    lengths = own if block is None else np.full(len(own), block)
    if lengths.min() < 1 or len(times) // lengths.min() < FEWEST:
        raise DataError(
            f"{len(times)} initial times in blocks of {lengths.min()}",
            f"The scatter of fewer than {FEWEST} blocks tells nothing, and a block has one initial time at least",
            "Forecast from more dates, or further apart; give block=1 if the dates are independent",
        )
    return lengths


def _judge(frequencies: xr.DataArray, length: int) -> xr.Dataset:
    """The test at one lead, of frequencies ``(time, [level,] rank)`` in blocks of `length`."""
    whole = frequencies.isel(time=slice(0, frequencies.sizes["time"] // length * length))
    blocks = whole.coarsen(time=length).mean() if length > 1 else whole
    parts = xr.apply_ufunc(
        flatness_of,
        blocks,
        input_core_dims=[["time", "rank"]],
        output_core_dims=[["component"], ["component"], ["component"], [], []],
        vectorize=True,
    )
    names = ("p_value", "chi_square", "departure", "effective_cases", "blocks")
    return xr.Dataset(dict(zip(names, parts, strict=True))).assign_coords(component=np.array(COMPONENTS, object))


def flatness_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, int]:
    """Tests histograms of independent blocks.

    Args:
        blocks: Relative frequencies ``(block, rank)``; blocks that are NaN do not count.

    Returns:
        p, χ² and departure, each ``(component,)`` in the order of `COMPONENTS`, effective cases, and how many blocks counted. NaN with
        fewer than `FEWEST` blocks, or where they do not scatter.
    """
    blocks = blocks[~np.isnan(blocks).any(axis=1)]
    count, ranks = blocks.shape
    if count < FEWEST:
        return *(np.full(len(COMPONENTS), np.nan) for _ in range(3)), np.nan, count
    mean, covariance = blocks.mean(0) - 1 / ranks, np.cov(blocks, rowvar=False)
    along = _contrasts(ranks)
    scatter = np.array([np.trace(covariance), *np.einsum("ci,ij,cj->c", along, covariance, along)])
    squares = np.array([mean @ mean, *(along @ mean) ** 2])
    freedom = np.array([_freedom(covariance, count), 1.0, 1.0])
    effective = count * (1 - 1 / ranks) / scatter[0] if scatter[0] > 0 else np.nan
    statistic = np.divide(count * squares, scatter, out=np.full(3, np.nan), where=scatter > 1e-15)
    p = f_distribution.sf(statistic, freedom, freedom * (count - 1))
    departure = np.sqrt(ranks) * np.array([np.sqrt(squares[0]), *(along @ mean)])
    return p, effective * ranks * squares, departure, effective, count


def _contrasts(ranks: int) -> np.ndarray:
    """Orthonormal straight line, rising, and parabola, open above, over the ranks, ``(2, ranks)``."""
    place = np.linspace(-1.0, 1.0, ranks)
    basis = np.linalg.qr(np.stack([np.ones(ranks), place, place**2], axis=1))[0][:, 1:].T
    return basis * np.sign(basis[:, -1:])


def _freedom(covariance: np.ndarray, count: int) -> float:
    """ν = tr² Σ / tr Σ², from unbiased estimates of both, between 1 and the number of ranks less one."""
    n, trace, square = count - 1, np.trace(covariance), np.sum(covariance**2)
    squared_trace = n * (n + 1) / ((n - 1) * (n + 2)) * (trace**2 - 2 * square / (n + 1))
    trace_of_square = n**2 / ((n - 1) * (n + 2)) * (square - trace**2 / n)
    most = len(covariance) - 1.0
    return float(np.clip(squared_trace / trace_of_square, 1.0, most)) if trace_of_square > 0 else most
