"""What a layout costs, by formula, beside what it costs when it runs; and the layout that is suggested."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_layouts import RECIPE, perturb

from aeris.data.store import Store
from aeris.data.variables import state_channels
from aeris.errors import ConfigurationError
from aeris.model import layers, presets
from aeris.model.config import ModelConfig
from aeris.model.network import Network
from aeris.model.presets import SamplingRecipe
from aeris.swipe import Groups, Layout
from aeris.swipe.ledger import record
from aeris.swipe.plan import bubble, legal_layouts, memory_of, plan, sent_bytes, suggest
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer

MODEL = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
BATCH = 8


class Kept:
    """Counts the bytes that are kept for the backward pass, each storage once; parameters and buffers are there anyway."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
        self._tensors: list[torch.Tensor] = []  # so that no address comes twice
        self.of_tokens = self.of_times = self.of_weights = 0
        self.weights = {parameter.shape for parameter in network.parameters() if parameter.dim() > 1}
        self.weights |= {shape[::-1] for shape in self.weights}

    def __enter__(self) -> Kept:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._seen:
            return tensor
        self._seen.add(storage.data_ptr())
        self._tensors.append(tensor)
        if tensor.shape in self.weights and tensor.dtype == torch.bfloat16:
            self.of_weights += storage.nbytes()  # cast to the dtype of the activations
        elif tensor.numel() <= max(1, *tensor.shape):
            self.of_times += storage.nbytes()  # vectors made of the diffusion time of one image
        else:
            self.of_tokens += storage.nbytes()
        return tensor


def trainer_of(path: str, layout: Layout, model: ModelConfig = MODEL) -> Trainer:
    store = Store.open(path)
    configuration = configure(model, store, 20, BATCH, 1, None, "float32", 0, RECIPE, SamplingRecipe())
    trainer = Trainer(configuration, store, Groups.build(layout) if layout.world > 1 else Groups.alone(layout))
    perturb(trainer)
    return trainer


def memory_of_a_step(path: str, layout: Layout) -> tuple[int, int, int]:
    """Bytes that a forward pass of one image keeps, of tokens and of anything else, and those of the optimizer, on a rank."""
    trainer = trainer_of(path, layout)
    with trainer.batches() as batches:
        batch = next(batches)
        trainer.advance(batch)
        (noisy, condition), _, given = trainer.objective.draw(batch, slice(0, 1))
    with Kept(trainer.network) as kept:
        output = trainer.pipeline.stages[0](noisy, condition, **given)
    del output
    moments = [trainer.optimizer.adamw.state[flat.own][kind] for flat in trainer.optimizer.flats for kind in ("exp_avg", "exp_avg_sq")]
    state = [*moments, *(flat.average for flat in trainer.optimizer.flats)]
    return kept.of_tokens, kept.of_times + kept.of_weights, sum(tensor.numel() * tensor.element_size() for tensor in state)


@pytest.mark.parametrize("layout", [Layout(wp=(2, 2)), Layout(sp=4), Layout(wp=(1, 2), sp=4), Layout(dp=2, sp=2)], ids=str)
def test_memory_falls_as_there_are_more_ranks(ranks, small_store, layout):
    """What a rank keeps of tokens falls as 1/(WP·SP), and optimizer and average as 1/(DP·WP·SP).

    Left aside: vectors made of the diffusion time, which every rank holds whole. Weights are no part of either.
    """
    path = str(small_store.path)
    tokens, others, state = ranks.run(1, memory_of_a_step, path, Layout())[0]
    assert others < 0.05 * tokens
    for rank_tokens, rank_others, rank_state in ranks.run(layout.world, memory_of_a_step, path, layout):
        assert rank_tokens == pytest.approx(tokens / layout.token_ranks, rel=0.1)
        assert rank_others == pytest.approx(others, rel=0.1)
        assert rank_state == pytest.approx(state / layout.world, rel=0.1)


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputing_keeps_the_inputs_of_blocks_alone(small_store, recompute):
    """2·d bytes a token in bfloat16, here 4·d in float32, of each block; the embedding's and the head's own aside."""
    path = str(small_store.path)
    deeper = [memory_of_blocks(path, depth, recompute) for depth in (2, 6)]
    each = (deeper[1] - deeper[0]) / 4 / (16 * 32)
    if recompute:
        assert each == pytest.approx(4 * MODEL.dim, rel=0.05)
    else:
        assert each > 40 * MODEL.dim


def memory_of_blocks(path: str, depth: int, recompute: bool) -> int:
    trainer = trainer_of(path, Layout(recompute=recompute), replace(MODEL, depth=depth))
    with trainer.batches() as batches:
        (noisy, condition), _, given = trainer.objective.draw(next(batches), slice(0, 1))
    with Kept(trainer.network) as kept:
        output = trainer.pipeline.stages[0](noisy, condition, **given)
    del output
    return kept.of_tokens


@pytest.mark.parametrize(("dim", "mlp", "window"), [(96, 256, (8, 8)), (128, 512, (8, 8)), (96, 256, (16, 16))])
def test_a_block_keeps_as_many_bytes_as_the_plan_says(monkeypatch, dim, mlp, window):
    """In bfloat16 with the fused kernel of attention, as on a GPU."""
    monkeypatch.setattr(layers, "attend", F.scaled_dot_product_attention)

    def kept(depth: int) -> int:
        model = ModelConfig((32, 64), ("2m_temperature",), dim=dim, depth=depth, mlp=mlp, window=window)
        network = Network(model)
        network.compute_dtype = torch.bfloat16
        tokens = (1, 32 // window[0], 64 // window[1], 4, window[0] * window[1] // 4)
        with Kept(network) as counted:
            network(torch.zeros(*tokens, 1), torch.zeros(*tokens, model.conditions), torch.ones(1))
        return counted.of_tokens

    expected = ModelConfig((32, 64), dim=dim, mlp=mlp, window=window).kept_bytes
    assert (kept(3) - kept(1)) / 2 / (32 * 64) == pytest.approx(expected, rel=0.03)


def sent_in_a_step(path: str, layout: Layout, model: ModelConfig) -> dict[str, int]:
    trainer = trainer_of(path, layout, model)
    with trainer.batches() as batches:
        batch = next(batches)
        with record(trainer.groups) as ledger:
            trainer.advance(batch)
    return dict(ledger.sent)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(pp=2, sp=4),
        Layout(dp=2, wp=(1, 2), sp=2),
        Layout(pp=2, sp=4, schedule="zbv"),
        Layout(pp=2, sp=2, schedule="interleaved_1f1b"),
        Layout(pp=2, sp=4, recompute=True),
        Layout(pp=6, sp=1, schedule="gpipe"),
    ],
    ids=str,
)
def test_the_formula_is_what_ranks_send(ranks, small_store, layout):
    model = replace(MODEL, time_mlp="shared")
    with_channels = replace(model, channels=tuple(small_store.statistics.channels))
    for rank, sent in enumerate(ranks.run(layout.world, sent_in_a_step, str(small_store.path), layout, model)):
        formula = sent_bytes(with_channels, layout, rank, BATCH, element=4)
        for kind in ("pipeline", "heads", "shift"):
            assert sent.get(kind, 0) == formula[kind], kind
        for kind in ("gradients", "parameters"):
            assert sent[kind] == pytest.approx(formula[kind], rel=0.02)  # flat tensors are filled up to equal parts


def test_the_suggestion_takes_the_least_work_of_all_that_fit():
    model = presets.tiny(channels=state_channels())
    needed = {layout: sum(memory_of(model, layout, 8).values()) for layout in legal_layouts(model, 8, 8)}
    memory = sorted(needed.values())[len(needed) // 3]
    chosen = suggest(model, 8, memory, 8)
    assert chosen.layout.world == 8
    assert chosen.memory <= memory
    assert chosen.work == min(plan(model, layout, 8).work for layout, size in needed.items() if size <= memory)
    assert Layout.suggest(model, 8, memory, 8) == chosen.layout


def test_less_memory_takes_more_work():
    model = presets.aeris_1_3b(channels=state_channels())
    works = [suggest(model, 48, memory, 48).work for memory in (2000.0, 60.0, 20.0)]
    assert works == sorted(works)
    assert works[0] < works[-1]


def test_the_paper_s_layout_of_40b_fits_where_blocks_are_recomputed():
    """PP 20, WP 36, SP 12 on tiles of 64 GB (arXiv 2509.13523)."""
    model = presets.aeris_40b(channels=state_channels())
    layout = Layout(dp=14, pp=20, wp=(6, 6), sp=12, recompute=True)
    assert plan(model, layout, 14 * 70).memory < 64
    assert plan(model, replace(layout, recompute=False), 14 * 70).memory > plan(model, layout, 14 * 70).memory


@pytest.mark.parametrize(
    ("world", "memory", "batch", "words"),
    [(8, 1e-6, 8, "needs .* GB or more"), (7, 60.0, 5, "no layout of 7 ranks for 5 images")],
)
def test_what_cannot_be_suggested_is_refused(world, memory, batch, words):
    with pytest.raises(ConfigurationError, match=words):
        suggest(presets.tiny(channels=state_channels()), world, memory, batch)


@pytest.mark.parametrize(
    ("layout", "passes", "idle"),
    [
        (Layout(pp=4), 8, 3 / 11),
        (Layout(pp=4, schedule="interleaved_1f1b"), 8, 3 / 19),
        (Layout(pp=4, schedule="zbv"), 8, 0.0),
        (Layout(), 8, 0),
    ],
)
def test_the_bubble(layout, passes, idle):
    assert bubble(layout, passes) == pytest.approx(idle)
