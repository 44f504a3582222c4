"""Which layers are computed again in the backward pass, by Megatron's flags."""

from __future__ import annotations

from qwen3_ops.native.training.flags import FLAGS


def recomputed_layers(flags: FLAGS) -> list[range]:
    """Runs of layers of which only the input is kept.

    ``uniform`` cuts all layers into runs of ``--recompute-num-layers``, ``block`` takes so many of the first
    layers one by one. ``--recompute-granularity selective`` names none: torch's attention never keeps its scores.
    """
    if flags.recompute_granularity != "full":
        return []
    layers, size = flags.num_layers, flags.recompute_num_layers or 1
    if flags.recompute_method == "block":
        return [range(number, number + 1) for number in range(min(size, layers))]
    return [range(start, min(start + size, layers)) for start in range(0, layers, size)]
