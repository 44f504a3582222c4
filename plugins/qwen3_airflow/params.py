"""The trigger form: RunConfig's fields as Airflow params."""

from __future__ import annotations

import os

from airflow.sdk import Param

from qwen3_ops.config import form_fields
from qwen3_ops.recipes import DEFAULT_RECIPE, RECIPES

RECIPE_VARIABLE = "QWEN3_AIRFLOW_RECIPE"
"""Environment variable with the recipe that forms start from; ``make ui`` sets it to the twin's."""


def form_params() -> dict[str, Param]:
    """``recipe`` and, each optional, every value that may override the recipe's."""
    fields = form_fields(
        recipes={name: recipe() for name, recipe in RECIPES.items()},
        default_recipe=os.environ.get(RECIPE_VARIABLE, DEFAULT_RECIPE),
    )
    return {
        field.name: Param(field.default, description=field.description, title=field.title, section=field.section, **field.schema)
        for field in fields
    }
