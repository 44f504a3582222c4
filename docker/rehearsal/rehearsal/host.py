"""``convert_ckpt.py`` and ``preprocess_data.py``: one process without devices."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from qwen3_ops.events import Events
from qwen3_ops.flags import get_flag
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.verbs import VERBS, Context
from rehearsal.failing import Failure
from rehearsal.world import World, say


def main(verb: str) -> None:
    argv = sys.argv[1:]
    logging.basicConfig(format="%(levelname)s:%(name)s:%(message)s", level=logging.INFO)
    if (failure := Failure.wanted()) is not None:
        failure.happen(0)
    if verb == "convert-ckpt":
        _convert(argv)
    else:
        _preprocess(argv)


def _convert(argv: list[str]) -> None:
    to_hf = get_flag(argv, "--save-model-type") == "hf"
    save = get_flag(argv, "--save-dir")
    if to_hf and "--hf-cfg-dir" not in argv:
        argv = [*argv, "--hf-cfg-dir", str(save)]  # the real tool finds the base model's config in --save-dir
    flags, _ = VERBS["convert-ckpt"].flags().parse(argv)
    logging.info("Loaded loader_%s as the loader.", get_flag(argv, "--load-model-type"))
    logging.info("Starting saver...")
    if get_flag(argv, "--load-model-type") == "hf":
        say(_world(1, 1))  # the loader's; from Megatron it is the source's layout
    VERBS["convert-ckpt"].implementation()(flags, Context(events=Events(), output=Path(str(save))))
    (Path(str(save)) / "certificate.json").unlink(missing_ok=True)  # ours alone; the real tool proves nothing
    say(_world(int(get_flag(argv, "--target-tensor-parallel-size") or 1), int(get_flag(argv, "--target-pipeline-parallel-size") or 1)))
    if to_hf:
        logging.info("save weight to %s/mg2hf", save)
    logging.info("Done!")


def _world(tp: int, pp: int) -> str:
    layout = ParallelLayout(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
    return World(rank=0, size=tp * pp, nodes=1, layout=layout).line()


def _preprocess(argv: list[str]) -> None:
    flags, _ = VERBS["preprocess-data"].flags().parse(argv)
    folder = Path(str(get_flag(argv, "--output-prefix"))).parent
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a directory or does not exist")
    say(f"building dataset: {get_flag(argv, '--input')}", f"Output prefix: {get_flag(argv, '--output-prefix')}")
    made = VERBS["preprocess-data"].implementation()(flags, Context(events=Events(), output=folder))
    say(f"Processed {made.metrics['records']} documents (0.0 docs/s, 0.0 MB/s).")
