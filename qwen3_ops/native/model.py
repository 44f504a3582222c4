"""Qwen3 in plain PyTorch, its modules named as Megatron-mcore names them.

A full (unsharded) mcore state dict loads strictly, and LoRA wraps the same four linear
layers as in MindSpeed-LLM. Shapes: b batch, s sequence, H hidden, h heads, g query groups,
d head dimension, F feed-forward, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qwen3_ops.errors import BadInput
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.kernels import rms_norm, rotate, swiglu
from qwen3_ops.native.products import attention, linear


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension; the statistics in fp32."""

    def __init__(self, size: int, *, eps: float, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Linear(nn.Linear):
    """Without a bias, and without the time that drawing weights takes: they are loaded or drawn elsewhere."""

    def __init__(self, columns: int, rows: int, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__(columns, rows, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None: ...

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight)


class WordEmbeddings(nn.Embedding):
    """Its weights are loaded or drawn elsewhere, too."""

    def reset_parameters(self) -> None: ...


class KVCache:
    """Keys and values of the positions seen so far, [b, g, max_length, d] per layer.

    The first call of the model fills the prompt in, every further one appends its positions.
    """

    def __init__(self, spec: ModelSpec, *, batch: int, max_length: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        shape = (spec.num_layers, 2, batch, spec.num_query_groups, max_length, spec.kv_channels)
        self._store = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store [b, g, s, d] behind what is there; returns all of it, [b, g, length + s, d]."""
        end = self.length + key.shape[2]
        self._store[layer, 0, :, :, self.length : end] = key
        self._store[layer, 1, :, :, self.length : end] = value
        return self._store[layer, 0, :, :, :end], self._store[layer, 1, :, :, :end]

    def spread(self, *, batch: int, max_length: int) -> KVCache:
        """A cache of ``batch`` rows that all begin with what this one, of a single row, holds."""
        layers, _, _, groups, _, size = self._store.shape
        spread = KVCache.__new__(KVCache)
        spread._store = self._store.new_zeros(layers, 2, batch, groups, max_length, size)
        spread._store[..., : self.length, :] = self._store[..., : self.length, :]
        spread.length = self.length
        return spread

    def reorder(self, rows: Tensor) -> None:
        """Make row i of the batch a copy of the old row ``rows[i]`` (beam search)."""
        self._store = self._store[:, :, rows]


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys.

    ``linear_qkv`` [(g*(h/g+2)*d), H] holds per group the rows of its queries, of its key, of its value.
    """

    def __init__(self, spec: ModelSpec, *, layer: int, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.groups, self.head_dim = layer, spec.num_query_groups, spec.kv_channels
        self.heads_per_group = spec.num_attention_heads // spec.num_query_groups
        width = spec.num_attention_heads * spec.kv_channels
        rows = self.groups * (self.heads_per_group + 2) * self.head_dim
        self.linear_qkv = Linear(spec.hidden_size, rows, device=device, dtype=dtype)
        self.linear_proj = Linear(width, spec.hidden_size, device=device, dtype=dtype)
        self.q_layernorm = RMSNorm(self.head_dim, eps=spec.norm_epsilon, device=device, dtype=dtype)
        self.k_layernorm = RMSNorm(self.head_dim, eps=spec.norm_epsilon, device=device, dtype=dtype)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None) -> Tensor:
        b, s, _ = x.shape
        fused = self.linear_qkv(x).view(b, s, self.groups, self.heads_per_group + 2, self.head_dim)
        query, key, value = fused.split([self.heads_per_group, 1, 1], dim=3)
        query = rotate(self.q_layernorm(query).view(b, s, -1, self.head_dim).transpose(1, 2), rope)  # [b, h, s, d]
        key = rotate(self.k_layernorm(key.squeeze(3)).transpose(1, 2), rope)  # [b, g, s, d]
        value = value.squeeze(3).transpose(1, 2)
        if cache is not None:
            key, value = cache.append(self.layer, key, value)
        mixed = attention(query, key, value, mask=mask, causal=mask is None and s > 1)
        return cast(Tensor, self.linear_proj(mixed.transpose(1, 2).reshape(b, s, -1)))


class MLP(nn.Module):
    """SwiGLU; ``linear_fc1`` [2F, H] is the gate's rows, then the up projection's."""

    def __init__(self, spec: ModelSpec, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear_fc1 = Linear(spec.hidden_size, 2 * spec.ffn_hidden_size, device=device, dtype=dtype)
        self.linear_fc2 = Linear(spec.ffn_hidden_size, spec.hidden_size, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear_fc2(swiglu(self.linear_fc1(x))))


class Layer(nn.Module):
    """One decoder layer, pre-norm."""

    def __init__(self, spec: ModelSpec, *, layer: int, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(spec.hidden_size, eps=spec.norm_epsilon, device=device, dtype=dtype)
        self.self_attention = Attention(spec, layer=layer, device=device, dtype=dtype)
        self.pre_mlp_layernorm = RMSNorm(spec.hidden_size, eps=spec.norm_epsilon, device=device, dtype=dtype)
        self.mlp = MLP(spec, device=device, dtype=dtype)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.self_attention(self.input_layernorm(x), rope, mask, cache)
        return cast(Tensor, x + self.mlp(self.pre_mlp_layernorm(x)))


class Embedding(nn.Module):
    def __init__(self, spec: ModelSpec, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.word_embeddings = WordEmbeddings(spec.padded_vocab_size, spec.hidden_size, device=device, dtype=dtype)


class Decoder(nn.Module):
    def __init__(self, spec: ModelSpec, *, device: torch.device | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(spec, layer=n, device=device, dtype=dtype) for n in range(spec.num_layers))
        self.final_layernorm = RMSNorm(spec.hidden_size, eps=spec.norm_epsilon, device=device, dtype=dtype)


class Qwen3(nn.Module):
    """The dense Qwen3 decoder.

    Attributes:
        recompute: runs of layers of which only the input is kept for the backward pass; the rest is computed again.
    """

    def __init__(self, spec: ModelSpec, *, dtype: torch.dtype, device: torch.device | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.recompute: Sequence[range] = ()
        self.embedding = Embedding(spec, device=device, dtype=dtype)
        self.decoder = Decoder(spec, device=device, dtype=dtype)
        if spec.untie_embeddings_and_output_weights:
            self.output_layer = Linear(spec.hidden_size, spec.padded_vocab_size, device=device, dtype=dtype)

    @property
    def output_weight(self) -> Tensor:
        """[V, H]; the embedding itself where they are tied."""
        untied = self.spec.untie_embeddings_and_output_weights
        return self.output_layer.weight if untied else self.embedding.word_embeddings.weight

    def hidden_states(
        self,
        input_ids: Tensor,
        *,
        positions: Tensor | None = None,
        padding: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The normalised last hidden states.

        Args:
            input_ids: [b, s].
            positions: [b, s] or [s]; counted from the cache's length when not given.
            padding: bool [b, cache length + s], True where a key must not be seen. Not needed
                for padding on the right: no earlier position sees it.
            documents: [b, s], numbers of the documents packed in a row; none sees another. Without a cache.
            cache: is extended by s positions.

        Returns:
            [b, s, H].
        """
        past = 0 if cache is None else cache.length
        s = input_ids.shape[1]
        if positions is None:
            positions = torch.arange(past, past + s, device=input_ids.device)
        x = self.embedding.word_embeddings(input_ids)
        rope = rope_table(positions, head_dim=self.spec.kv_channels, base=self.spec.rotary_base, dtype=x.dtype)
        mask = attention_mask(s=s, past=past, padding=padding, documents=documents, device=input_ids.device)

        def run(x: Tensor, layers: range) -> Tensor:
            for number in layers:
                x = self.decoder.layers[number](x, rope, mask, cache)
            return x

        done = 0
        for layers in self.recompute if torch.is_grad_enabled() else ():
            x = checkpoint(run, x, layers, use_reentrant=False)
            done = layers.stop
        x = run(x, range(done, self.spec.num_layers))
        if cache is not None:
            cache.length += s
        return cast(Tensor, self.decoder.final_layernorm(x))

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        padding: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [b, s, V] in the model's dtype; the arguments are those of ``hidden_states``."""
        return linear(self.hidden_states(input_ids, positions=positions, padding=padding, cache=cache), self.output_weight)


def attention_mask(*, s: int, past: int, padding: Tensor | None, device: torch.device, documents: Tensor | None = None) -> Tensor | None:
    """Bool [b or 1, 1, s, past + s], True where a key may be seen; None where plain causality says it all."""
    if padding is None and documents is None and (past == 0 or s == 1):
        return None
    causal = torch.ones(s, past + s, dtype=torch.bool, device=device).tril(past)
    if documents is not None:
        return (causal & (documents[:, :, None] == documents[:, None, :]))[:, None]
    if padding is None:
        return causal[None, None]
    # A padding position sees itself: a row without any key would be NaN.
    own = torch.eye(past + s, dtype=torch.bool, device=device)[past:]
    return (causal & ~padding[:, None, :] | own)[:, None]


def rope_table(positions: Tensor, *, head_dim: int, base: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine, computed in fp32: [s, d], or [b, 1, s, d] for positions per row."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[..., None].float() * (1.0 / base**exponent)
    angles = torch.cat((angles, angles), dim=-1)
    if positions.dim() == 2:
        angles = angles[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def build_model(spec: ModelSpec, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> Qwen3:
    """A model whose weights are not set yet (no time is spent on drawing numbers)."""
    return Qwen3(spec, dtype=dtype, device=torch.device(device))


def load_full_state(model: Qwen3, state: Mapping[str, Tensor]) -> None:
    """Copy an unsharded mcore state dict into the model, cast to the model's dtype.

    Raises:
        BadInput: a tensor is missing, superfluous or of another shape than the model's.
    """
    copy_state(model.state_dict(), state)


def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, copy: Callable[[Tensor, Tensor], object] = Tensor.copy_) -> None:
    """Set every tensor of ``own`` by ``copy(tensor, whole)``; raises as `load_full_state`."""
    problems = [f"{name}: not in the checkpoint" for name in own if name not in state]
    problems += [f"{name}: not in the model" for name in state if name not in own]
    problems += [
        f"{name}: {list(state[name].shape)} in the checkpoint, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise BadInput("the checkpoint does not fit the model's flags", value=shown, remedy="Take the shape from the model's config.json.")
    with torch.no_grad():
        for name, tensor in own.items():
            copy(tensor, state[name])
