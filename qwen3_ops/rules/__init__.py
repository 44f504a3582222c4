"""The plan's linter, one module a theme."""

from qwen3_ops.rules import (  # each registers its rules
    batches,
    capacity,
    checkpoints,
    data,
    engines,
    faults,
    layout,
    network,
    places,
    training,
)
from qwen3_ops.rules.registry import RULES, Rule, apply

__all__ = [
    "RULES",
    "Rule",
    "apply",
    "batches",
    "capacity",
    "checkpoints",
    "data",
    "engines",
    "faults",
    "layout",
    "network",
    "places",
    "training",
]
