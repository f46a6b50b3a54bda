"""The command that shows the whole line."""

from __future__ import annotations

from pathlib import Path


def demo(out: Path = Path("demo"), steps: int = 700, seed: int = 0, lead: str = "24h") -> None:
    """The whole line on the simulated planet, with a page to look at: simulate, prepare, train, forecast, verify.

    Args:
        out: Directory of everything it leaves; called again, it goes on where it was.
        steps: Optimizer steps of the training.
        seed: Seed of training and sampling.
        lead: Length of the forecasts that are scored, for example 24h or 72h.
    """
    from aeris.demo import demo as run_demo

    done = run_demo(out, steps, seed, lead)
    for score in ("crps_over_optimum", "rmse_over_optimum"):
        means = ", ".join(f"{value['mean']:.3f} at {at}" for at, value in done.scores[score].items())
        print(f"{score.replace('_', ' ')}: {means}")
    print(f"look at {done.report}")
