from __future__ import annotations

import pytest
from airflow.sdk.exceptions import ParamValidationError

from qwen3_airflow.params import MODEL_VARIABLE, form_params
from qwen3_ops.config import RunConfig
from qwen3_ops.recipes import DEFAULT_RECIPE, RECIPES


def test_the_form_offers_every_field_of_a_run():
    assert list(form_params()) == list(RunConfig.model_fields)


def test_every_field_but_the_recipe_may_stay_empty():
    for name, param in form_params().items():
        assert param.resolve() == (DEFAULT_RECIPE if name == "recipe" else None)


def test_every_field_explains_itself():
    for name, param in form_params().items():
        assert param.schema["title"], name
        assert param.schema["section"], name
        assert param.description, name


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_form_takes_every_value_of_every_recipe(recipe):
    params = form_params()
    for name, value in RECIPES[recipe]().model_dump(mode="json").items():
        assert params[name].resolve(value) == value


@pytest.mark.parametrize(("name", "value"), [("train_iters", 0), ("lr", "much"), ("recipe", "huge"), ("recipe", None), ("split", "1,2")])
def test_the_form_refuses_wrong_values(name, value):
    with pytest.raises(ParamValidationError):
        form_params()[name].resolve(value)


def test_the_recipe_a_form_starts_from_can_be_chosen(monkeypatch):
    monkeypatch.setenv(MODEL_VARIABLE, "tiny")
    assert form_params()["recipe"].resolve() == "tiny"
