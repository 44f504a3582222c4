"""The trigger form: RunConfig's fields as Airflow params."""

from __future__ import annotations

import os

from airflow.sdk import Param

from qwen3_ops.config import form_fields
from qwen3_ops.recipes import RECIPES, Kind, name_of

MODEL_VARIABLE = "QWEN3_AIRFLOW_MODEL"
"""Environment variable with the model size that forms start from; ``make ui`` sets it to ``tiny``."""


def form_params(kind: Kind = "lora") -> dict[str, Param]:
    """``recipe`` and, each optional, every value that may override the recipe's.

    Args:
        kind: of the pipeline's training; its recipes' values are shown.
    """
    size = os.environ.get(MODEL_VARIABLE, "14B")
    fields = form_fields(
        recipes={name: recipe() for name, recipe in RECIPES.items()},
        default_recipe=name_of(size, kind),
        shown=(name_of("14B", kind), name_of("tiny", kind)),
    )
    return {
        field.name: Param(field.default, description=field.description, title=field.title, section=field.section, **field.schema)
        for field in fields
    }
