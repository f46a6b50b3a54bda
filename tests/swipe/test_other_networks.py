"""Another window transformer, sharded by the protocol alone: three-dimensional windows over levels, with biases of every head."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from aeris.model.quadrants import shift, to_tokens, unshift
from aeris.swipe import Layout, ShardedAdamW, parallelize, share
from aeris.swipe.pipeline import Stage

LEVELS, CHANNELS, WIDTH, HEADS, CLASSES = 3, 2, 16, 4, 5


@dataclass(frozen=True)
class Shape:
    """Four blocks, the shift in every second pair; a plane with edges on all sides."""

    grid: tuple[int, int] = (8, 16)
    window: tuple[int, int] = (4, 4)
    depth: int = 4
    heads: int = HEADS

    def shifted(self, block: int) -> bool:
        return block in (1, 2)


class Attention(nn.Module):
    """Attention with a bias for every head and pair of tokens, and a mask at the edges."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        tokens = shape.window[0] * shape.window[1] * LEVELS
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, tokens, tokens))
        quadrant = torch.arange(4).repeat_interleave(tokens // 4)
        sides = torch.stack([quadrant // 2, quadrant % 2])
        self.register_buffer("apart", sides[:, :, None] != sides[:, None, :])

    def forward(self, x: Tensor, seam: tuple[bool, bool]) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, HEADS, -1)).flatten(3, 4)
        return self.out(self.mix(qkv, seam, slice(0, HEADS)).view(x.shape))

    def mix(self, qkv: Tensor, seam: tuple[bool, bool], heads: slice) -> Tensor:
        q, k, v = qkv.transpose(3, 5).unbind(4)
        logits = q @ k.transpose(-1, -2) + self.bias[heads]
        for axis, where in enumerate(((-1, slice(None)), (slice(None), -1))):
            if seam[axis]:
                masked = logits.clone()
                masked[:, *where] = logits[:, *where].masked_fill(self.apart[axis], -torch.inf)
                logits = masked
        return (logits.softmax(-1) @ v).transpose(3, 4).flatten(4)


class Block(nn.Module):
    """Normalised attention and feed-forward, scaled by the context."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), Attention(shape)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))

    def forward(self, x: Tensor, context: Tensor, seam: tuple[bool, bool]) -> Tensor:
        x = x + context * self.attention(self.norm(x), seam)
        return x + self.mlp(x)


class LevelTransformer(nn.Module):
    """Predicts a class for every token from a field on several levels."""

    width, tokens_per_pixel, compute_dtype, token_fields = WIDTH, LEVELS, torch.float64, ("place",)

    def __init__(self) -> None:
        super().__init__()
        self.config = Shape()
        self.embedding, self.head = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.scale = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(Block(self.config) for _ in range(self.config.depth))
        self.register_buffer("place", tokens_of(torch.randn(1, WIDTH * LEVELS, *self.config.grid), WIDTH)[0])

    def context(self, season: Tensor) -> Tensor:
        return self.scale(season[:, None])[:, None, None, None, None]

    def embed(self, x: Tensor) -> Tensor:
        return self.embedding(x) + self.place

    def read_out(self, x: Tensor, context: Tensor) -> Tensor:
        return self.head(x)

    def forward(self, x: Tensor, season: Tensor) -> Tensor:
        """The whole network on one process, with the shift as a plain dealing of the whole field."""
        context, x, shifted = self.context(season), self.embed(x), False
        for number, block in enumerate(self.blocks):
            wanted = self.config.shifted(number)
            if wanted != shifted:
                x = shift(x) if wanted else unshift(x)
            shifted = wanted
            x = block(x, context, (shifted, shifted))
        return self.read_out(unshift(x) if shifted else x, context)


def tokens_of(field: Tensor, channels: int) -> Tensor:
    """Pixels of a field ``(B, levels · C, H, W)`` as tokens, the levels of a pixel one after the other."""
    return to_tokens(field, Shape().window).unflatten(-1, (LEVELS, channels)).flatten(4, 5)


def problem() -> tuple[LevelTransformer, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    network = LevelTransformer().double()
    x = tokens_of(torch.randn(8, LEVELS * CHANNELS, *network.config.grid, dtype=torch.float64), CHANNELS)
    target = torch.randn(*x.shape[:-1], CLASSES, dtype=torch.float64)
    return network, x, target, torch.rand(8, dtype=torch.float64)


def loss(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum() / 1000


def sharded(layout: Layout) -> tuple[float, dict[str, Tensor] | None]:
    """Loss, and parameters after two steps on one rank of each stage."""
    network, x, target, season = problem()
    pipeline = parallelize(network, layout)
    parameters, groups = pipeline.parameters(), pipeline.groups
    adamw = ShardedAdamW(parameters, [], pipeline.shared_parameters(), groups, 0.0, (0.9, 0.99), 1e-8)
    own = share(layout, groups.at)
    size = 8 // layout.dp
    mine = range(groups.at.dp * size, (groups.at.dp + 1) * size)
    passes = [lambda i=i: ((own.cut(x[[i]], first=1),), own.cut(target[[i]], first=1), {"season": season[[i]]}) for i in mine]
    for _ in range(2):
        update = adamw.step(0.01, 1e9, 0.5, pipeline.step(loss, passes)[None])
    writes = (groups.at.dp, groups.at.row, groups.at.column, groups.at.sp) == (0, 0, 0, 0)
    return update.counted[0], {name: parameter.detach().clone() for name, parameter in parameters.items()} if writes else None


@pytest.fixture(scope="module")
def expected() -> tuple[float, dict[str, Tensor]]:
    """The same on one process with nothing of ours but the network above: torch's own AdamW."""
    network, x, target, season = problem()
    adamw = torch.optim.AdamW(network.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(2):
        adamw.zero_grad()
        value = loss(network(x, season), target)
        value.backward()
        adamw.step()
    return float(value.detach()), {name: parameter.detach() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(wp=(2, 2)),
        Layout(pp=2, sp=4),
        Layout(dp=2, pp=2, sp=2, schedule="zbv"),
        pytest.param(Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_1f1b"), marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_network_that_is_not_aeris_gives_the_same_numbers_on_many_ranks(ranks, expected, layout):
    results = ranks.run(layout.world, sharded, layout)
    assert all(value == pytest.approx(expected[0], rel=1e-10) for value, _ in results)
    found = {name: tensor for _, part in results for name, tensor in (part or {}).items()}
    assert found.keys() == expected[1].keys()
    for name, tensor in found.items():
        assert (tensor - expected[1][name]).norm() <= 1e-9 * expected[1][name].norm(), name


def test_a_stage_counts_its_own_parameters_and_the_shared_ones():
    pipeline = parallelize(LevelTransformer(), Layout())
    assert isinstance(pipeline.stages[0], Stage)
    assert sorted(pipeline.shared_parameters()) == ["scale.bias", "scale.weight"]
