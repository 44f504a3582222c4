"""Signatures of checkpoints that are missing, damaged or of another layout."""

from __future__ import annotations

import re

from qwen3_ops.mindspeed.diagnosis.signature import Fault, Signature

SIGNATURES: tuple[Signature, ...] = (
    Signature(
        name="checkpoint-missing",
        needles=("could not find the metadata file",),
        cause="there is no checkpoint in --load, so MindSpeed-LLM went on with random weights",
        remedy="Give the folder that holds latest_checkpointed_iteration.txt, on every node; not a Hugging Face folder.",
        fault=Fault.BAD_INPUT,
        example="WARNING: could not find the metadata file /data/mg/latest_checkpointed_iteration.txt\n"
        "    will not load any checkpoints and will start from random",
    ),
    Signature(
        name="checkpoint-missing-exit",
        needles=("'--exit-on-missing-checkpoint' set",),
        cause="there is no checkpoint in --load; MindSpeed-LLM ended with exit status 0",
        remedy="Give the folder that holds latest_checkpointed_iteration.txt, on every node; not a Hugging Face folder.",
        fault=Fault.BAD_INPUT,
        example=">> '--exit-on-missing-checkpoint' set ... exiting. <<",
    ),
    Signature(
        name="checkpoint-damaged",
        needles=("could not load the checkpoint",),
        cause="a checkpoint's file is damaged or was cut off",
        remedy="Go back to the iteration before: write its number into latest_checkpointed_iteration.txt; or convert again.",
        fault=Fault.BAD_INPUT,
        example="could not load the checkpoint",
    ),
    Signature(
        name="checkpoint-file-missing",
        needles=("model_optim_rng.pt",),
        pattern=re.compile(r"(FileNotFoundError|No such file or directory).*model_optim_rng\.pt"),
        cause="the checkpoint lacks the file of a rank: it was made with another TP or PP, or lies on another node",
        remedy="Convert to the layout of the run, or gather the parts of all nodes.",
        fault=Fault.BAD_INPUT,
        example="[rank5]: FileNotFoundError: [Errno 2] No such file or directory: "
        "'/data/mg/iter_0000001/mp_rank_01_002/model_optim_rng.pt'",
    ),
    Signature(
        name="checkpoint-keys",
        needles=("in state_dict",),
        pattern=re.compile(r"(Missing|Unexpected) key\(s\) in state_dict"),
        cause="the checkpoint's tensors are not the model's: TP, PP, tied embeddings, qk-layernorm or --spec differ",
        remedy="Compare the flags of the conversion with those of the run.",
        fault=Fault.BAD_INPUT,
        example='[rank0]:     Missing key(s) in state_dict: "decoder.layers.0.self_attention.q_layernorm.weight".',
    ),
    Signature(
        name="checkpoint-shapes",
        needles=("size mismatch for",),
        cause="the checkpoint's tensors have other shapes than the model's: another TP, PP, vocabulary or model",
        remedy="Compare the flags of the conversion with those of the run.",
        fault=Fault.BAD_INPUT,
        example="[rank0]:     size mismatch for embedding.word_embeddings.weight: copying a param with shape torch.Size([75968, 5120]) "
        "from "
        "checkpoint, the shape in current model is torch.Size([151936, 5120]).",
    ),
    Signature(
        name="checkpoint-arguments",
        needles=("value from checkpoint",),
        pattern=re.compile(r"value from checkpoint \(.*\) is not equal to the input argument value"),
        cause="the run to be continued had other sizes",
        remedy="Keep TP, PP and the model's flags; a changed layout needs a conversion and a new start with --finetune.",
        fault=Fault.BAD_INPUT,
        example="AssertionError: tensor_model_parallel_size value from checkpoint (2) is not equal to the input argument value (4).",
    ),
    Signature(
        name="optimizer-missing",
        needles=("Unable to load optimizer from checkpoint",),
        cause="a converted or merged checkpoint has no optimizer; MindSpeed-LLM ended with exit status 0",
        remedy="Keep --no-load-optim and --no-load-rng for the first start.",
        fault=Fault.BAD_INPUT,
        example="Unable to load optimizer from checkpoint /data/mg/iter_0000001/mp_rank_00_000/model_optim_rng.pt. Specify "
        "--no-load-optim or "
        "--finetune to prevent attempting to load the optimizer state, exiting ...",
    ),
    Signature(
        name="rng-missing",
        needles=("Unable to load rng state from checkpoint",),
        cause="the checkpoint has no random state; MindSpeed-LLM ended with exit status 0",
        remedy="Keep --no-load-rng for the first start.",
        fault=Fault.BAD_INPUT,
        example="Unable to load rng state from checkpoint /data/mg/iter_0000001/mp_rank_00_000/model_optim_rng.pt. Specify "
        "--no-load-rng or "
        "--finetune to prevent attempting to load the rng state, exiting ...",
    ),
    Signature(
        name="conversion-layers",
        needles=("Unexpected message. Expecting",),
        cause="the number of layers is not divisible by PP, so a stage got fewer layers than it was sent",
        remedy="Choose a PP that divides the number of layers, or give --num-layer-list.",
        fault=Fault.BAD_INPUT,
        example='Unexpected message. Expecting "final norm" but got "transformer layer 36". Exiting saver.',
    ),
    Signature(
        name="conversion-values",
        needles=("Unexpected values in",),
        cause="the conversion met tensors that it has no place for",
        remedy="Compare --model-type-hf, --spec and the flags of biases with the model.",
        fault=Fault.BAD_INPUT,
        example="Unexpected values in transformer layer 0: ['qkv bias']",
    ),
    Signature(
        name="conversion-config",
        needles=("You may got an incomplete config",),
        cause="config.json lacks a field that the conversion reads, as configs of transformers 5 do",
        remedy="Give torch_dtype and rope_theta at the top level of config.json.",
        fault=Fault.BAD_INPUT,
        example="rope_theta was not found in the config file.\nYou may got an incomplete config, please check hf config.json",
    ),
    Signature(
        name="conversion-loader",
        needles=("Loader exited, exiting saver",),
        cause="the conversion's loader failed",
        remedy="Read its traceback.",
        fault=Fault.BAD_INPUT,
        wraps=True,
        example="Loader exited, exiting saver",
    ),
    Signature(
        name="conversion-saver",
        needles=("saver process exited with error code",),
        cause="the conversion's saver failed",
        remedy="Read its traceback.",
        fault=Fault.BAD_INPUT,
        wraps=True,
        example="saver process exited with error code 1",
    ),
)
