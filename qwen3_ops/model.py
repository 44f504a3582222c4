"""What a model is: read from a Hugging Face ``config.json``, never typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from qwen3_ops.errors import BadInput

Dtype = Literal["bf16", "fp16", "fp32"]
ModelType = Literal["qwen3", "qwen3_moe"]

_DTYPES: dict[str, Dtype] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

_EXPERT_KEYS = {"num_experts": "num_experts", "moe_intermediate_size": "moe_intermediate_size", "moe_router_topk": "num_experts_per_tok"}


class ModelSpec(BaseModel):
    """A Qwen3 model's shape under Megatron's argument names.

    ``kv_channels`` is the head dimension; ``num_attention_heads * kv_channels`` need not be
    ``hidden_size`` (Qwen3-14B: 40 * 128 = 5120, but 0.6B: 16 * 128 = 2048 against 1024).
    Of a mixture of experts every layer has ``num_experts`` of ``moe_intermediate_size``; a dense model has neither.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: ModelType
    num_layers: PositiveInt
    hidden_size: PositiveInt
    ffn_hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_query_groups: PositiveInt
    kv_channels: PositiveInt
    padded_vocab_size: PositiveInt
    rotary_base: int
    norm_epsilon: float
    max_position_embeddings: int
    untie_embeddings_and_output_weights: bool
    params_dtype: Dtype
    num_experts: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    moe_router_topk: int | None = None

    @property
    def num_parameters(self) -> int:
        """All weights, the embedding counted once when tied."""
        heads = self.num_attention_heads * self.kv_channels
        groups = self.num_query_groups * self.kv_channels
        attention = self.hidden_size * (2 * heads + 2 * groups) + 2 * self.kv_channels
        feed_forward = 3 * self.hidden_size * self.ffn_hidden_size
        if self.num_experts is not None:
            feed_forward = self.num_experts * self.hidden_size * (3 * (self.moe_intermediate_size or 0) + 1)
        layer = attention + feed_forward + 2 * self.hidden_size
        embeddings = self.padded_vocab_size * self.hidden_size * (2 if self.untie_embeddings_and_output_weights else 1)
        return self.num_layers * layer + embeddings + self.hidden_size

    @classmethod
    def from_hf(cls, folder: Path, *, model_type: ModelType | None = "qwen3") -> ModelSpec:
        """Read ``folder/config.json`` (``torch_dtype`` or ``dtype``, ``rope_theta`` or ``rope_parameters``).

        Args:
            model_type: that it must be of; None: any that is known.

        Raises:
            BadInput: not there, not JSON, a key missing, or another model type.
        """
        path = folder / "config.json"
        return cls.from_config(read_json(path, what="the model's config.json"), source=path, model_type=model_type)

    @classmethod
    def find(cls, folder: Path) -> ModelSpec:
        """Of ``folder``; where it is not on this machine, of the released model with its name.

        Raises:
            BadInput: neither, or a config.json that is wrong.
        """
        known = None if (folder / "config.json").exists() else released(folder.name)
        return known or cls.from_hf(folder, model_type=None)

    @classmethod
    def from_config(cls, config: dict[str, Any], *, source: Path, model_type: ModelType | None = "qwen3") -> ModelSpec:
        if model_type is None:
            model_type = "qwen3_moe" if config.get("model_type") == "qwen3_moe" else "qwen3"
        if config.get("model_type") != model_type:
            kind = "dense Qwen3 model" if model_type == "qwen3" else "Qwen3 mixture of experts"
            raise BadInput(
                f"model_type must be {model_type}",
                value=repr(config.get("model_type")),
                source=source,
                remedy=f"Give the folder of a {kind}.",
            )
        if model_type == "qwen3_moe" and (config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers")):
            raise BadInput("some layers have no experts, which no released Qwen3 has", source=source)
        if model_type == "qwen3_moe" and config.get("norm_topk_prob") is False:
            raise BadInput("norm_topk_prob is false, which no released Qwen3 has", source=source)
        rope = config.get("rope_parameters") or {}
        if not isinstance(rope, dict):
            raise BadInput("rope_parameters is not a table", value=rope, source=source)
        scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
        if scaling:
            raise BadInput(
                "rope_scaling is set, which needs YaRN flags that are not rendered", value=scaling, source=source, remedy="Set it to null."
            )
        if config.get("attention_bias"):
            raise BadInput("attention_bias is true, which no Qwen3 model has", source=source)
        dtype = config.get("torch_dtype") or config.get("dtype")
        try:
            return cls(
                model_type=model_type,
                num_layers=config["num_hidden_layers"],
                hidden_size=config["hidden_size"],
                ffn_hidden_size=config["intermediate_size"],
                num_attention_heads=config["num_attention_heads"],
                num_query_groups=config["num_key_value_heads"],
                kv_channels=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
                padded_vocab_size=config["vocab_size"],
                rotary_base=int(config["rope_theta"] if "rope_theta" in config else rope["rope_theta"]),
                norm_epsilon=config["rms_norm_eps"],
                max_position_embeddings=config["max_position_embeddings"],
                untie_embeddings_and_output_weights=not config.get("tie_word_embeddings", False),
                params_dtype=_DTYPES[str(dtype)],
                **({ours: config[theirs] for ours, theirs in _EXPERT_KEYS.items()} if model_type == "qwen3_moe" else {}),
            )
        except KeyError as error:
            what = f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}" if str(error) == repr(str(dtype)) else f"{error} is missing"
            raise BadInput("the model's config.json is incomplete", value=what, source=source) from error
        except (ValueError, TypeError, ArithmeticError) as error:
            raise BadInput("the model's config.json has a wrong value", value=error, source=source) from error


def released(name: str) -> ModelSpec | None:
    """A released model's shape by the name of its folder (``Qwen3-14B``), for planning where the folder is not; None: no such model."""
    path = Path(__file__).with_name("released.json")
    configs = read_json(path, what="the shapes of the released models")
    return ModelSpec.from_config(configs[name], source=path, model_type=None) if name in configs else None


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadInput: missing, unreadable or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{what} is not there", value=path, remedy="Check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{what} can not be read", value=error, source=path) from error
    if not isinstance(value, dict):
        raise BadInput(f"{what} is not a JSON object", source=path)
    return value
