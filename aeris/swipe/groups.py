"""The process groups of a layout, and its device mesh."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from aeris.device import Device
from aeris.errors import ConfigurationError
from aeris.swipe.layout import Coordinates, Layout

TIMEOUT = timedelta(minutes=10)
"""Time after which a rank that waits for another gives up."""

AXES = ("dp", "wp_row", "wp_column", "pp", "sp")


@dataclass(frozen=True)
class Groups:
    """One rank's place in a layout and the groups that it belongs to.

    A process alone has no groups: everything that would use them has nobody to talk to.

    Attributes:
        layout: The layout.
        at: This rank's coordinates.
        sequence: Ranks that share its windows.
        pipeline: Ranks that hold the stages of its tokens, in the order of the stages.
        image: Ranks that share an image at its stage.
        holders: Ranks that hold the same parameters.
        up: All ranks, for messages of a stream to higher ranks; on one group a send could wait for a send that waits for it.
        down: All ranks, for messages of a stream to lower ranks.
        mesh: All axes, named ``dp, wp_row, wp_column, pp, sp``.
    """

    layout: Layout
    at: Coordinates
    sequence: dist.ProcessGroup | None = None
    pipeline: dist.ProcessGroup | None = None
    image: dist.ProcessGroup | None = None
    holders: dist.ProcessGroup | None = None
    up: dist.ProcessGroup | None = None
    down: dist.ProcessGroup | None = None
    mesh: DeviceMesh | None = None

    @property
    def world(self) -> dist.ProcessGroup | None:
        """All ranks."""
        return None if self.layout.world == 1 else dist.group.WORLD

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self.layout.rank(self.at)

    def agree(self, value: Any, what: str) -> None:
        """Refuses processes that were asked for different things.

        Args:
            value: What this one was asked for.
            what: Its name, as it stands in the error.

        Raises:
            ConfigurationError: Some rank holds another value.
        """
        values = self.collect(value)
        other = next((rank for rank, found in enumerate(values) if found != values[0]), None)
        if other is not None:
            where, difference = self.layout.coordinates(other), _difference(values[other], values[0])
            raise ConfigurationError(
                f"Rank {other} ({where}) and rank 0 do not agree on {what}: {difference}",
                "All processes of a layout are started with the same arguments",
                "Start them from one command",
            )

    def add_over_image(self, part: Tensor) -> Tensor:
        """Sum over the ranks that share an image at this stage; each of them calls it."""
        if self.layout.token_ranks > 1:
            dist.all_reduce(part, group=self.image)
        return part

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.layout.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Closes the connections of this process, so that whoever waits for it hears at once."""
        for name in ("sequence", "pipeline", "image", "holders", "up", "down", "mesh"):
            object.__setattr__(self, name, None)
        if dist.is_initialized():
            dist.destroy_process_group()
        gc.collect()

    def collect(self, value: Any) -> list[Any]:
        """A small object of every rank, on every rank, in their order."""
        if self.layout.world == 1:
            return [value]
        values: list[Any] = [None] * self.layout.world
        dist.all_gather_object(values, value)
        return values

    @staticmethod
    def alone(layout: Layout | None = None) -> Groups:
        """The one rank of a layout of one.

        Args:
            layout: The layout, where it says more than that there is one rank.
        """
        return Groups(layout or Layout(), Coordinates(0, 0, 0, 0, 0))

    @staticmethod
    def join(layout: Layout, device: Device) -> Groups:
        """This process's place; joins the others where there are any and they have not been joined yet.

        Args:
            layout: The layout.
            device: Whose collectives are used.

        Raises:
            ConfigurationError: There are more or fewer processes than ranks.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if not dist.is_initialized() and world > 1:
            device.init_process_group(timeout=TIMEOUT)
        if not dist.is_initialized():
            layout.check_world(1)
            return Groups.alone(layout)
        return Groups.build(layout, device.torch_device.type)

    @staticmethod
    def build(layout: Layout, device_type: str = "cpu") -> Groups:
        """Makes the groups of this process; every process of the world calls it.

        Groups are made one by one among their members alone, since not every backend can split the world's.

        Args:
            layout: A layout of as many ranks as there are processes.
            device_type: Of the mesh, for example ``"cuda"``.
        """
        layout.check_world(dist.get_world_size())
        at = layout.coordinates(dist.get_rank())
        wp = (at.row, at.column)

        def group(ranks: list[int]) -> dist.ProcessGroup:
            return dist.new_group(ranks, use_local_synchronization=True)

        rows = [layout.rank(Coordinates(at.dp, row, at.column, at.pp, at.sp)) for row in range(layout.wp[0])]
        columns = [layout.rank(Coordinates(at.dp, at.row, column, at.pp, at.sp)) for column in range(layout.wp[1])]
        axes = [
            group(layout.ranks(wp=wp, pp=at.pp, sp=at.sp)),
            group(rows),
            group(columns),
            group(layout.ranks(dp=at.dp, wp=wp, sp=at.sp)),
            group(layout.ranks(dp=at.dp, wp=wp, pp=at.pp)),
        ]
        numbers = torch.arange(layout.world).view(layout.dp, *layout.wp, layout.pp, layout.sp)
        mesh = DeviceMesh.from_group(axes, device_type, mesh=numbers, mesh_dim_names=AXES)
        image, holders = group(layout.ranks(dp=at.dp, pp=at.pp)), group(layout.ranks(pp=at.pp))
        up, down = (dist.new_group(), dist.new_group()) if layout.pp > 1 else (None, None)
        return Groups(layout, at, axes[4], axes[3], image, holders, up, down, mesh)


def _difference(one: Any, other: Any) -> str:
    """The first entry in which two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in one if one[name] != other.get(name))
        return f"{name}={one[name]} and {name}={other.get(name)}"
    return f"{one} and {other}"
