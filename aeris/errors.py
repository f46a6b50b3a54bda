"""Errors that tell a person what was found, which rule it breaks and what would do.

Every refusal of the package is an :class:`AerisError`. It is raised before any work is done, so that a typing mistake in a
notebook costs a second and not a queue slot.
"""

from __future__ import annotations


class AerisError(Exception):
    """A refusal in three parts: what was found, the rule it breaks, and a remedy.

    Args:
        found: The offending value and where it stands, as a clause without a full stop.
        rule: The rule that it breaks.
        remedy: A value or an action that would do.
    """

    def __init__(self, found: str, rule: str, remedy: str) -> None:
        super().__init__(found, rule, remedy)
        self.found, self.rule, self.remedy = found, rule, remedy

    def __str__(self) -> str:
        return " ".join(part.strip().rstrip(".") + "." for part in self.args if part)


class ConfigurationError(AerisError, ValueError):
    """A model, layout, recipe or argument that cannot work."""


class DataError(AerisError, ValueError):
    """Input fields that are not what they should be: names, units, levels, times, values."""


class StoreError(AerisError):
    """Something on disk that is unfinished, in the way, full, or of another make."""


class CheckpointError(AerisError):
    """A checkpoint that is damaged, incomplete, or trained on something else."""


class DeviceError(AerisError, RuntimeError):
    """An accelerator, number format or collective backend that this machine lacks."""


class RankLost(AerisError):
    """A rank of a layout has gone, and the others cannot go on."""


class ClusterError(AerisError, RuntimeError):
    """Engines that do not start, do not fit this notebook, or fail in a job."""


class EngineLost(AerisError, RuntimeError):
    """An engine that took part in a job has gone."""
