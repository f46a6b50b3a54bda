"""A stage of `torch.distributed.pipelining` whose neighbours need not be the ranks of its own pipeline."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage

from aeris.swipe.deferral import Deferral
from aeris.swipe.groups import Groups


class RoutedStage(PipelineStage):
    """A pipeline stage that may send to another window and sequence rank's next stage.

    Args:
        stage: What it computes.
        index: Its number.
        routes: Rank that holds this rank's tokens at the neighbouring stages, by stage.
        groups: This rank's place.
        messages: Example of what it receives and of what it gives, on the meta device.
        device: Where it computes.
        deferral: Weight gradients that wait, for zero-bubble schedules.
    """

    def __init__(
        self,
        stage: nn.Module,
        index: int,
        routes: dict[int, int],
        groups: Groups,
        messages: tuple[tuple[Tensor, ...], Tensor],
        device: torch.device,
        deferral: Deferral | None,
    ) -> None:
        received, given = messages
        later = None if deferral is None else deferral.take
        super().__init__(
            stage, index, groups.layout.stages, device, input_args=received, output_args=given, group=groups.pipeline, dw_builder=later
        )
        self.routes = routes
        self.group = None  # peers are named by their rank in the world from here on

    def _resolve_peer_global_rank(self, stage_idx: int) -> int:
        return self.routes[stage_idx]
