"""What a second start of a training must change."""

from __future__ import annotations

from collections.abc import Sequence


def resume(argv: Sequence[str], *, saved: str) -> list[str]:
    """``argv`` of a start that goes on from the last iteration saved in ``saved``.

    Without the flags that restart the schedule. Saves of LoRA weights alone (``--lora-ckpt-filter``) are loaded over the
    base; others hold the base as well.
    """
    restarting = ("--finetune", "--no-load-optim", "--no-load-rng")
    kept = [token for token in argv if token not in restarting]
    if "--lora-ckpt-filter" in kept:
        return [*kept, "--lora-load", saved]
    kept[kept.index("--load") + 1] = saved
    return kept
