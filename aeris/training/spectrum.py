"""The spectrum of tokens that several processes hold, and the CRPS of its coefficients as a loss.

A score of pixels hardly sees scales that hold a thousandth of a field's variance, so that a forecast may lose them, or drown them in
noise. Here every degree of the sphere counts alike, in units of how far the truth has moved there: the fair CRPS of spherical-harmonic
coefficients, as FourCastNet 3 takes it beside that of pixels (arXiv 2507.12144). In units of the state's own amplitude a field that
lies on mountains would hide its weather.

The transform is linear: each process takes its own pixels, as if all others were zero, and the coefficients of all add up.

Shapes:
    B  sample            R, K  window row, window column          Q, P  quadrant, pixel of a quadrant
    C  state channel     H     pixel rows that are here
    M  order             L     degree                             Z     real and imaginary part
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from aeris.data.grid import Grid
from aeris.data.harmonics import Sphere, whole_scalar
from aeris.diffusion.crps import fair_crps
from aeris.model.fields import Fields
from aeris.swipe.groups import Groups

SMALLEST = 1e-4
"""Smallest amplitude of a degree that is told from nothing, in deviations of a step's change: float32 knows no smaller ones."""


class Spectrum:
    """Spherical-harmonic analysis of tokens.

    Args:
        fields: The tokens that are here.
        groups: The processes that hold the rest of an image.

    Raises:
        DataError: The rows are of no kind that can be analysed exactly.
    """

    def __init__(self, fields: Fields, groups: Groups) -> None:
        self.groups, (_, self.columns) = groups, fields.geography.grid.shape
        row, column = fields.ids.flatten() // self.columns, fields.ids.flatten() % self.columns
        rows, place = row.unique(return_inverse=True)
        self.rows, self.place = len(rows), place * self.columns + column
        self.tables_MLH = torch.as_tensor(_tables(fields.geography.grid, rows.tolist()), dtype=fields.dtype, device=fields.device)

    def coefficients(self, x_BRKQPC: Tensor) -> Tensor:
        """Coefficients of the whole field, ``(B, C, M, L, Z)``, on every process that holds a part of it; all of them call it.

        The sum of their squares over M and Z is the mean square of a degree over the globe. Each of n processes counts an nth of
        what is made of them, so that the gradient in its own tokens is n times that of its copy.
        """
        part = self._part(x_BRKQPC)
        whole = self.groups.add_over_image(part.detach().clone())
        return whole + self.groups.layout.token_ranks * (part - part.detach())

    def _part(self, x_BRKQPC: Tensor) -> Tensor:
        """What the tokens here add to the coefficients."""
        maps = x_BRKQPC.new_zeros(len(x_BRKQPC), x_BRKQPC.shape[-1], self.rows * self.columns)
        maps = maps.index_copy(2, self.place, x_BRKQPC.flatten(1, 4).movedim(1, 2))
        waves_BCHM = torch.fft.rfft(maps.unflatten(2, (self.rows, self.columns)))[..., : len(self.tables_MLH)]
        return torch.einsum("mlh,bchmz->bcmlz", self.tables_MLH, torch.view_as_real(waves_BCHM))

    def relative_crps(self, errors_M: Sequence[Tensor], change: Tensor) -> Tensor:
        """Fair CRPS of coefficients over the amplitude of the truth's change at their degree, mean over degrees from 1.

        Args:
            errors_M: Member minus truth, of each member, in deviations of a step's change, tokens ``(B, R, K, Q, P, C)``.
            change: Truth minus initial state in the same units.

        Returns:
            This process's part, ``(B, C)``; the parts of all that share an image add up to it.
        """
        moved = self.coefficients(change)
        modes = 2 * torch.arange(moved.shape[3], dtype=moved.dtype, device=moved.device) + 1
        amplitude = moved.square().sum((2, 4)).sqrt().clamp(min=SMALLEST)
        crps = fair_crps([self.coefficients(error) for error in errors_M], torch.zeros_like(moved)).sum((2, 4))
        return (crps / amplitude / modes.sqrt())[..., 1:].mean(-1) / self.groups.layout.token_ranks


def _tables(grid: Grid, rows: Sequence[int]) -> np.ndarray:
    """What a unit pixel in column 0 of each row gives to each coefficient, ``(M, L, H)``: the analysis is linear, and knows turns."""
    sphere = Sphere.on(grid)
    order, degree, size = sphere.order, sphere.degree, sphere.largest + 1
    tables = np.zeros((size, size, len(rows)))
    for here, row in enumerate(rows):
        pixel = np.zeros(grid.shape)
        pixel[row, 0] = 1.0
        field = xr.DataArray(pixel, {"latitude": grid.latitude, "longitude": grid.longitude})
        tables[order, degree, here] = np.sqrt(sphere.share) * sphere.analysis(whole_scalar(field).values).real
    return tables
