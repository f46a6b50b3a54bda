from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr

from aeris.data.grid import Grid, coarsen, drop_pole_row, regrid, restore_pole_row, row_edges
from aeris.errors import DataError


def global_mean(field: xr.DataArray) -> float:
    """Mean over the sphere: ∫ f cos φ dφ dλ over cells whose edges lie halfway between rows."""
    latitude = field.latitude.values
    edges = np.deg2rad(np.concatenate([[90.0], 0.5 * (latitude[1:] + latitude[:-1]), [-90.0]]))
    share = (np.sin(edges[:-1]) - np.sin(edges[1:])) / 2
    return float((field.mean("longitude").values * share).sum())


def random_field(grid: Grid, seed: int = 0) -> xr.DataArray:
    values = 280 + 20 * np.random.default_rng(seed).standard_normal(grid.shape)
    return xr.DataArray(values, dims=("latitude", "longitude"), coords={"latitude": grid.latitude, "longitude": grid.longitude})


class TestRows:
    def test_odd_rows_hold_both_poles_even_rows_neither(self):
        era5, bands = Grid.regular(721, 1440), Grid.regular(32, 64)
        np.testing.assert_allclose(era5.latitude[[0, 1, 360, 720]], [90, 89.75, 0, -90])
        np.testing.assert_allclose(bands.latitude[[0, 31]], [87.1875, -87.1875])
        np.testing.assert_allclose(era5.longitude[[0, 1, -1]], [0, 0.25, 359.75])

    def test_edges_lie_halfway_and_end_at_the_poles(self):
        np.testing.assert_allclose(row_edges(np.array([60.0, 20.0, -50.0])), [90, 40, -15, -90])

    @pytest.mark.parametrize("shape", [(721, 1440), (32, 64), (181, 360)])
    def test_areas_are_those_of_zones_of_the_sphere(self, shape):
        grid = Grid.regular(*shape)
        top = np.minimum(90.0, grid.latitude + 90.0 / (shape[0] - shape[0] % 2))
        bottom = np.maximum(-90.0, grid.latitude - 90.0 / (shape[0] - shape[0] % 2))
        zones = 2 * np.pi * (np.sin(np.deg2rad(top)) - np.sin(np.deg2rad(bottom)))  # unit sphere: 4π in all
        np.testing.assert_allclose(grid.area / shape[0] * 4 * np.pi, zones, rtol=1e-9, atol=1e-12)
        assert grid.area.mean() == pytest.approx(1.0)

    def test_the_last_row_of_a_grid_without_its_pole_reaches_to_the_pole(self):
        grid = Grid(Grid.regular(721, 1440).latitude[:-1], Grid.regular(721, 1440).longitude)
        assert grid.area[-1] / grid.area.sum() == pytest.approx((1 - np.sin(np.deg2rad(89.625))) / 2)

    def test_loss_weight_is_that_of_aeris(self):
        grid = Grid.regular(32, 64)
        raw = np.cos(np.deg2rad(grid.latitude)) + 0.01
        np.testing.assert_allclose(grid.loss_weight, raw / raw.mean())


class TestRefusals:
    @pytest.mark.parametrize(
        "latitude",
        [np.linspace(-90, 90, 19), np.array([0.0]), np.array([95.0, 0.0]), np.array([10.0, 10.0, 0.0]), np.zeros((2, 2))],
        ids=["rising", "one row", "beyond the pole", "twice", "two-dimensional"],
    )
    def test_rows(self, latitude):
        with pytest.raises(DataError, match="north to south"):
            Grid(latitude, np.arange(36) * 10.0)

    @pytest.mark.parametrize(
        "longitude", [np.arange(20) * 10.0, np.arange(37) * 10.0, np.arange(36)[::-1] * 10.0], ids=["regional", "0 and 360", "falling"]
    )
    def test_columns(self, longitude):
        with pytest.raises(DataError, match="whole circle"):
            Grid(np.linspace(90, -90, 19), longitude)

    def test_a_band_is_not_global_but_a_gaussian_grid_is(self):
        with pytest.raises(DataError, match="from 70 to 20"):
            Grid(np.linspace(70, 20, 11), np.arange(36) * 10.0).check_global()
        gaussian = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(40)[0]))[::-1]
        Grid(gaussian, np.arange(80) * 4.5).check_global()

    def test_other_coordinates(self):
        with pytest.raises(DataError, match="No coordinate latitude and longitude among lat, lon"):
            Grid.of(xr.Dataset(coords={"lat": [1.0, 0.0], "lon": [0.0, 180.0]}))


class TestCoarsen:
    @pytest.mark.parametrize("source", [(72, 144), (73, 144), (181, 360)])
    def test_the_global_mean_is_conserved(self, source):
        field = random_field(Grid.regular(*source))
        coarse = coarsen(field.to_dataset(name="t"), (32, 64)).t
        assert coarse.shape == (32, 64)
        assert global_mean(coarse) == pytest.approx(global_mean(field), rel=1e-12)

    def test_any_longitude_origin_conserves_too(self):
        grid = Grid(np.linspace(88, -88, 45), -177.5 + np.arange(72) * 5.0)
        field = random_field(grid)
        assert global_mean(coarsen(field.to_dataset(name="t"), (16, 32)).t) == pytest.approx(global_mean(field), rel=1e-12)

    def test_a_constant_stays(self):
        ds = xr.full_like(random_field(Grid.regular(181, 360)), 7.25).to_dataset(name="t")
        np.testing.assert_allclose(coarsen(ds, (32, 64)).t, 7.25, rtol=1e-13)

    def test_whole_blocks_are_area_means(self):
        field = random_field(Grid.regular(64, 128))
        edges = np.sin(np.deg2rad(90.0 - np.arange(65) * 180.0 / 64))
        weight = edges[:-1] - edges[1:]
        rows = (field.values * weight[:, None]).reshape(32, 2, 128).sum(1) / weight.reshape(32, 2).sum(1)[:, None]
        # the centres of both grids lie on 0°, so a coarse cell takes half of each neighbour
        expected = 0.5 * rows[:, ::2] + 0.25 * (np.roll(rows, 1, 1)[:, ::2] + rows[:, 1::2])
        np.testing.assert_allclose(coarsen(field.to_dataset(name="t"), (32, 64)).t, expected, rtol=1e-12)

    def test_missing_values_are_left_out_and_a_mostly_missing_cell_stays_missing(self):
        ds = xr.full_like(random_field(Grid.regular(64, 128)), 300.0).to_dataset(name="sst")
        ds.sst[:, 40:80] = np.nan
        coarse = coarsen(ds, (16, 16)).sst
        # a coarse cell reaches 4 columns to either side of column 8 j: 4.5 of cell 5 are missing, 3.5 of cell 10
        np.testing.assert_array_equal(np.isnan(coarse[0]), [5 <= j <= 9 for j in range(16)])
        np.testing.assert_allclose(coarse.values[~np.isnan(coarse)], 300.0)

    def test_other_dimensions_types_names_and_laziness_are_kept(self):
        field = random_field(Grid.regular(36, 72)).astype("float32").expand_dims(time=3, level=[500, 850])
        field.attrs["units"] = "K"
        ds = field.to_dataset(name="temperature").assign(planet_modes=("time", np.arange(3.0)))
        coarse = coarsen(ds.chunk(time=1), (18, 36))
        assert coarse.temperature.dims == ("time", "level", "latitude", "longitude")
        assert coarse.temperature.chunks is not None and coarse.temperature.dtype == np.float32
        assert coarse.temperature.attrs["units"] == "K"
        np.testing.assert_array_equal(coarse.planet_modes, np.arange(3.0))

    def test_a_finer_target_is_refused(self):
        with pytest.raises(DataError, match=r"18×36 grid to 32×64.*Choose a shape up to \(18, 36\)"):
            coarsen(random_field(Grid.regular(18, 36)).to_dataset(name="t"), (32, 64))

    def test_real_orography_keeps_its_mean(self, shared_data):
        ds = xr.open_dataset(shared_data / "earth2studio" / "orography.nc", engine="netcdf4")
        field = ds[next(iter(ds.data_vars))].isel(time=0, drop=True)
        coarse = coarsen(field.to_dataset(name="z"), (32, 64)).z
        assert global_mean(coarse) == pytest.approx(global_mean(field.astype("float64")), rel=1e-6)
        assert float(coarse.sel(latitude=35, longitude=90, method="nearest")) > 3000 * 9.80665  # Tibet


def shared_area(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area that two cells (south, north, west, east in degrees) share on the unit sphere, whatever turn of the circle they are on."""
    south, north = max(one[0], other[0]), min(one[1], other[1])
    widths = [min(one[3], other[3] + turn) - max(one[2], other[2] + turn) for turn in (-720, -360, 0, 360, 720)]
    return max(0.0, np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))) * sum(np.deg2rad(width) for width in widths if width > 0)


def cells_of(grid: Grid) -> list[list[tuple[float, float, float, float]]]:
    """Edges of every cell."""
    rows, half = row_edges(grid.latitude), 180 / len(grid.longitude)
    return [[(rows[i + 1], rows[i], east - half, east + half) for east in grid.longitude] for i in range(len(rows) - 1)]


WITH_POLES = Grid(np.linspace(90, -90, 8), np.arange(16) * 22.5)
"""An even number of rows with both poles, as WeatherBench 2 has them at 5.6°."""


class TestRegrid:
    @pytest.mark.parametrize(
        ("source", "target"),
        [
            (Grid.regular(10, 18), Grid.regular(7, 12)),
            (WITH_POLES, Grid.regular(8, 16)),
            (Grid.regular(9, 15), WITH_POLES),
            (Grid(np.array([80.0, 35, 20, -5, -50, -85]), -175.0 + np.arange(9) * 40.0), Grid.regular(5, 14)),
        ],
        ids=["not a divisor", "poles", "to poles", "uneven rows"],
    )
    @pytest.mark.parametrize("holes", [0.0, 0.3])
    def test_it_is_the_mean_over_shared_areas_of_every_pair_of_cells(self, source, target, holes):
        field = random_field(source)
        field = field.where(np.random.default_rng(1).random(field.shape) >= holes)
        found = regrid(field.to_dataset(name="t"), target).t
        for row, line in enumerate(cells_of(target)):
            for column, cell in enumerate(line):
                areas = np.array([[shared_area(cell, other) for other in others] for others in cells_of(source)])
                known = field.notnull().values
                if (areas * known).sum() < 0.5 * areas.sum():
                    assert np.isnan(found[row, column])
                else:
                    assert found[row, column].item() == pytest.approx((areas * field.fillna(0).values).sum() / (areas * known).sum())

    @pytest.mark.parametrize("target", [Grid.regular(5, 7), Grid.regular(40, 81), WITH_POLES])
    def test_mean_and_constants_are_conserved_onto_any_grid(self, target):
        field = random_field(Grid.regular(33, 64))
        assert global_mean(regrid(field.to_dataset(name="t"), target).t) == pytest.approx(global_mean(field), rel=1e-12)
        np.testing.assert_allclose(regrid(xr.full_like(field, 3.5).to_dataset(name="t"), target).t, 3.5, rtol=1e-13)

    def test_the_same_grid_gives_the_same_field(self):
        field = random_field(Grid.regular(181, 360)).to_dataset(name="t")
        np.testing.assert_allclose(regrid(field, Grid.of(field)).t, field.t, rtol=1e-12)

    def test_a_finer_grid_repeats_the_coarse_values(self):
        field = random_field(Grid.regular(6, 12))
        fine = regrid(field.to_dataset(name="t"), Grid(Grid.regular(12, 36).latitude, Grid.regular(12, 36).longitude - 10.0)).t
        np.testing.assert_allclose(fine, field.values.repeat(2, 0).repeat(3, 1))

    def test_whole_numbers_become_fractions(self):
        mask = xr.ones_like(random_field(Grid.regular(4, 8)), dtype=int).where(lambda mask: mask.longitude < 180, 0)
        np.testing.assert_allclose(regrid(mask.to_dataset(name="lsm"), Grid.regular(4, 4)).lsm[0], [0.75, 1, 0.25, 0])

    def test_it_reads_only_the_part_that_is_asked_for(self):
        """Nothing of the other times is computed: they fail."""

        def values(block_info):
            (time, _), *_ = block_info[None]["array-location"]
            assert time == 1
            return np.ones((1, 36, 72), "float32")

        field = dask.array.map_blocks(values, chunks=((1, 1, 1), (36,), (72,)), dtype="float32", meta=np.empty((0, 0, 0), "float32"))
        grid = Grid.regular(36, 72)
        coordinates = {"latitude": grid.latitude, "longitude": grid.longitude}
        ds = xr.Dataset({"t": (("time", "latitude", "longitude"), field)}, coordinates)
        np.testing.assert_allclose(regrid(ds, Grid.regular(10, 20)).t.isel(time=1), 1.0)

    def test_a_region_is_refused(self):
        band = random_field(Grid(np.linspace(70, 20, 11), np.arange(36) * 10.0))
        with pytest.raises(DataError, match=r"from 70 to 20.*pole to pole"):
            regrid(band.to_dataset(name="t"), Grid.regular(4, 8))


class TestPoleRow:
    def winds_of_one_vector(self, grid: Grid, vector: tuple[float, float, float]) -> xr.Dataset:
        """Eastward and northward components of one constant vector in space, smooth everywhere."""
        phi, lam = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]
        x, y, z = vector
        u = -x * np.sin(lam) + y * np.cos(lam) + 0 * phi
        v = -np.sin(phi) * (x * np.cos(lam) + y * np.sin(lam)) + z * np.cos(phi)
        dims = ("latitude", "longitude")
        return xr.Dataset(
            {"10m_u_component_of_wind": (dims, u), "10m_v_component_of_wind": (dims, v)},
            coords={"latitude": grid.latitude, "longitude": grid.longitude},
        )

    @pytest.mark.parametrize("vector", [(3.0, -7.0, 5.0), (0.0, 4.0, 0.0)])
    @pytest.mark.parametrize(("pole", "row", "others"), [(-90.0, -1, slice(None, -1)), (90.0, 0, slice(1, None))])
    def test_a_constant_wind_vector_comes_back(self, vector, pole, row, others):
        whole = self.winds_of_one_vector(Grid.regular(181, 360), vector)
        dropped = drop_pole_row(whole, pole)
        assert Grid.of(dropped).dropped_pole == pole and Grid.of(dropped).whole.same_as(Grid.of(whole))
        restored = restore_pole_row(dropped)
        assert restored.latitude.values[row] == pole and Grid.of(restored).same_as(Grid.of(whole))
        for name in whole:
            np.testing.assert_array_equal(restored[name][others], whole[name][others])
            np.testing.assert_allclose(restored[name][row], whole[name][row], atol=2e-3)  # 1 - sin 89°, times 7

    def test_solid_body_rotation_stands_still_at_the_pole(self):
        grid = Grid.regular(181, 360)
        u = 40 * np.cos(np.deg2rad(grid.latitude))[:, None] * np.ones(grid.shape)
        ds = self.winds_of_one_vector(grid, (0, 0, 0)).assign({"10m_u_component_of_wind": (("latitude", "longitude"), u)})
        restored = restore_pole_row(drop_pole_row(ds))
        np.testing.assert_allclose(restored["10m_u_component_of_wind"][-1], 0.0, atol=1e-12)

    @pytest.mark.parametrize(("pole", "row", "neighbour"), [(-90.0, -1, -2), (90.0, 0, 1)])
    def test_a_scalar_takes_the_mean_of_its_neighbours(self, pole, row, neighbour):
        grid = Grid.regular(73, 144)
        ds = random_field(grid).to_dataset(name="2m_temperature").assign(planet_modes=("mode", np.arange(5.0)))
        ds = ds.expand_dims(time=2).assign(geopotential=random_field(grid, 1).expand_dims(time=2, level=3).astype("float32"))
        ds["2m_temperature"].attrs["units"] = "K"
        restored = restore_pole_row(drop_pole_row(ds, pole))
        np.testing.assert_allclose(restored["2m_temperature"][:, row], float(ds["2m_temperature"][0, neighbour].mean()))
        assert restored.geopotential.dims == ("time", "level", "latitude", "longitude") and restored.geopotential.dtype == np.float32
        assert restored["2m_temperature"].attrs == {"units": "K"}
        assert restored.planet_modes.dims == ds.planet_modes.dims

    def test_a_missing_scalar_stays_missing(self):
        ds = random_field(Grid.regular(73, 144)).to_dataset(name="sea_surface_temperature")
        ds["sea_surface_temperature"][60:] = np.nan
        assert np.isnan(restore_pole_row(drop_pole_row(ds))["sea_surface_temperature"][-1]).all()

    def test_real_wind_is_closer_than_its_neighbour_row(self, shared_data):
        name = "gfs_1deg_u10v10_6h_20181006-20181016_michael.nc"
        ds = xr.open_dataset(shared_data / "simple-wind" / name, engine="netcdf4").isel(time=slice(None, None, 8))
        ds = ds[["u10", "v10"]].rename(u10="10m_u_component_of_wind", v10="10m_v_component_of_wind")
        error, of_neighbour = (restore_pole_row(drop_pole_row(ds)) - ds).isel(latitude=-1), (ds.isel(latitude=-2) - ds.isel(latitude=-1))
        for wind in ds:
            assert float((error[wind] ** 2).mean()) < 0.5 * float((of_neighbour[wind] ** 2).mean()) < 2.0

    def test_only_a_row_at_the_pole_is_dropped(self):
        assert drop_pole_row(random_field(Grid.regular(721, 1440)).to_dataset(name="t")).sizes["latitude"] == 720
        for latitude in (np.linspace(88, -88, 89), Grid.regular(32, 64).latitude):
            grid = Grid(latitude, np.arange(64) * 5.625)
            assert drop_pole_row(random_field(grid).to_dataset(name="t")).sizes["latitude"] == len(latitude)

    def test_a_grid_that_lost_no_row_gets_none(self):
        assert Grid(Grid.regular(73, 144).latitude[:-1], Grid.regular(73, 144).longitude).pole_dropped
        for shape in ((73, 144), (32, 64)):
            assert not Grid.regular(*shape).pole_dropped and Grid.regular(*shape).whole.same_as(Grid.regular(*shape))
            with pytest.raises(DataError, match="where it was dropped"):
                restore_pole_row(random_field(Grid.regular(*shape)).to_dataset(name="t"))


def test_grids_are_compared_by_their_points():
    grid = Grid.regular(32, 64)
    assert grid.same_as(Grid(grid.latitude + 5e-5, grid.longitude))
    assert not grid.same_as(Grid(grid.latitude + 1e-3, grid.longitude))
    assert not grid.same_as(Grid.regular(32, 128))
