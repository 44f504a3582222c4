"""One rank of real megatron-core on a CPU: loads its file of a checkpoint, takes part in one forward pass.

``megatron_rank.py FOLDER TP PP RANK RENDEZVOUS OUTPUT``: the last stage's first rank writes the logits of
tokens 0..15. megatron-core assumes CUDA in a few places that a forward pass on a CPU has to get around.
"""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist


def main(folder: Path, tp: int, pp: int, rank: int, rendezvous: str, output: Path) -> None:
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self

    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
    from megatron.core.transformer.transformer_config import TransformerConfig

    CudaRNGStatesTracker.fork = lambda self, *args, **kwargs: contextlib.nullcontext()  # dropout is off
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=tp * pp)
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
    first, last = parallel_state.is_pipeline_first_stage(), parallel_state.is_pipeline_last_stage()
    tp_rank, pp_rank = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_pipeline_model_parallel_rank()
    name = f"mp_rank_{tp_rank:02d}" + (f"_{pp_rank:03d}" if pp > 1 else "")
    content = read(folder / "iter_0000001" / name / "model_optim_rng.pt")
    args = content["args"]
    config = TransformerConfig(
        num_layers=args.num_layers, hidden_size=args.hidden_size, ffn_hidden_size=args.ffn_hidden_size,
        num_attention_heads=args.num_attention_heads, num_query_groups=args.num_query_groups, kv_channels=args.kv_channels,
        tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, pipeline_dtype=torch.float32, params_dtype=torch.float32,
        normalization=args.normalization, layernorm_epsilon=args.norm_epsilon, qk_layernorm=args.qk_layernorm,
        gated_linear_unit=args.swiglu, activation_func=torch.nn.functional.silu, add_bias_linear=args.add_bias_linear,
        hidden_dropout=0.0, attention_dropout=0.0, use_cpu_initialization=True, bias_activation_fusion=False,
        bias_dropout_fusion=False, masked_softmax_fusion=False, apply_rope_fusion=False, gradient_accumulation_fusion=False,
    )  # fmt: skip
    model = GPTModel(
        config, get_gpt_layer_local_spec(qk_layernorm=True, normalization=args.normalization),
        vocab_size=args.padded_vocab_size, max_sequence_length=args.max_position_embeddings, pre_process=first, post_process=last,
        parallel_output=False, share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type, rotary_base=args.rotary_base,
    )  # fmt: skip
    state = {key: value.float() for key, value in content["model"].items() if value is not None}
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown, unknown
    assert not [key for key in missing if not key.endswith("_extra_state")], missing
    model.eval()
    tokens = torch.arange(16).unsqueeze(0)
    positions = torch.arange(16).unsqueeze(0)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool).triu(1)
    if not first:
        hidden = torch.empty(16, 1, config.hidden_size)
        dist.recv(hidden, src=parallel_state.get_pipeline_model_parallel_prev_rank())
        model.set_input_tensor(hidden)
    with torch.no_grad():
        result = model(tokens, positions, mask)
    if not last:
        dist.send(result.contiguous(), dst=parallel_state.get_pipeline_model_parallel_next_rank())
    elif tp_rank == 0:
        torch.save(result[0], output)
    dist.barrier()


def read(path: Path) -> dict[str, object]:
    from megatron.core.enums import ModelType

    with torch.serialization.safe_globals([Namespace, ModelType]):
        return torch.load(path, weights_only=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], Path(sys.argv[6]))
