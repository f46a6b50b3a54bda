"""Commands about the machine: what a layout of ranks costs on it, and which devices it has."""

from __future__ import annotations

from aeris.cli.arguments import ModelChanges, Preset, given
from aeris.swipe import Layout


def plan(
    preset: Preset = "tiny",
    batch: int | None = None,
    micro_batch: int = 1,
    model: ModelChanges = ModelChanges(),  # type: ignore[valid-type]  # noqa: B008
    layout: Layout = Layout(),  # noqa: B008
    ranks: int | None = None,
    memory: float = 64.0,
    measure: bool = False,
) -> None:
    """Says what a layout costs a rank: memory, bytes sent, bubble; or which layout to take.

    Args:
        preset: The model to start from; its channels are the 69 of the paper.
        batch: Images a step over all ranks; left out, eight for each data replica.
        micro_batch: Images of a forward pass.
        model: Changes to the preset.
        layout: How ranks share the work.
        ranks: Suggest the layout of so many ranks instead.
        memory: With --ranks, memory of a rank in GB.
        measure: Take one step with every rank on this machine and count what it sends.
    """
    from aeris.data.variables import state_channels
    from aeris.model import presets
    from aeris.swipe import plan as plans

    config = getattr(presets, preset)(**{"channels": state_channels(), **given(model)})
    if ranks is not None:
        layout = Layout.suggest(config, ranks, memory, batch)
        batch = batch or ranks
    batch = batch or 8 * layout.dp * micro_batch
    print(plans.plan(config, layout, batch, micro_batch))
    if measure:
        from aeris.training.measure import measure as measure_step
        from aeris.training.measure import table

        print(table(measure_step(config, layout, batch, micro_batch), config, layout, batch))


def doctor() -> None:
    """Says which device and collectives were chosen on this machine, and why."""
    from aeris import device

    print(device.explain())
