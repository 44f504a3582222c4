"""The runbook's scripts, flag by flag in their own order (MindSpeed-LLM 2.1.0, ``examples/mcore/qwen3``).

Where a script has a number typed in, it has a blank here: the model's come from its config.json, the rest from the run.
"""

from __future__ import annotations

from qwen3_ops.stages import faults
from qwen3_ops.stages.script import Script

_ONE_QUEUE = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}

CONVERT_HF_TO_MCORE = Script(
    name="convert_hf_to_mcore",
    program="convert_ckpt.py",
    env=_ONE_QUEUE,
    flags="""
        --use-mcore-models --model-type GPT --load-model-type hf --save-model-type mg
        --target-tensor-parallel-size {tensor_model_parallel_size} --target-pipeline-parallel-size {pipeline_model_parallel_size}
        {target_experts} {virtual_stages} {spec}
        --load-dir {hf} --save-dir {output} --tokenizer-model {tokenizer_json}
        --params-dtype {params_dtype} --model-type-hf {model_type_hf}
    """,
)

RESHARD = Script(
    name="reshard",
    program="convert_ckpt.py",
    env=_ONE_QUEUE,
    flags="""
        --use-mcore-models --model-type GPT --load-model-type mg --save-model-type mg
        --target-tensor-parallel-size {tensor_model_parallel_size} --target-pipeline-parallel-size {pipeline_model_parallel_size}
        {target_experts} {virtual_stages} {spec}
        --load-dir {load} --save-dir {output}
        --params-dtype {params_dtype} --model-type-hf {model_type_hf}
    """,
)

EXPORT_TO_HF = Script(
    name="export_to_hf",
    program="convert_ckpt.py",
    env=_ONE_QUEUE,
    flags="""
        --use-mcore-models --model-type GPT --load-model-type mg --save-model-type hf
        --target-tensor-parallel-size 1 --target-pipeline-parallel-size 1 {spec}
        --load-dir {checkpoint} --save-dir {output}
        --params-dtype {params_dtype} --model-type-hf {model_type_hf}
    """,
    faults=(faults.BESIDE_BASE,),
    native="--hf-cfg-dir {hf}",
)

MERGE_LORA = Script(
    name="merge_lora",
    program="convert_ckpt.py",
    flags="""
        --use-mcore-models --model-type GPT --load-model-type mg --save-model-type mg
        --target-tensor-parallel-size {tensor_model_parallel_size} --target-pipeline-parallel-size {pipeline_model_parallel_size}
        {target_experts} {virtual_stages} {spec}
        --lora-r {lora_r} --lora-alpha {lora_alpha} --lora-target-modules {lora_target_modules}
        --load-dir {checkpoint} --lora-load {adapter} --save-dir {output} --model-type-hf {model_type_hf}
    """,
    faults=(faults.PARAMS_DTYPE,),
)

EXPORT_LORA_TO_HF = Script(
    name="export_lora_to_hf",
    program="convert_ckpt.py",
    flags="""
        --use-mcore-models --model-type GPT --load-model-type mg --save-model-type hf
        --target-tensor-parallel-size 1 --target-pipeline-parallel-size 1 {spec}
        --lora-r {lora_r} --lora-alpha {lora_alpha} --lora-target-modules {lora_target_modules}
        --load-dir {checkpoint} --lora-load {adapter} --save-dir {output} --model-type-hf {model_type_hf}
    """,
    faults=(faults.PARAMS_DTYPE, faults.BESIDE_BASE),
    native="--hf-cfg-dir {hf}",
)

PREPARE_DATASET = Script(
    name="prepare_dataset",
    program="./preprocess_data.py",
    flags="""
        --input {source} --tokenizer-name-or-path {tokenizer} --output-prefix {prefix}
        --handler-name {handler_name} --tokenizer-type PretrainedFromHF --workers {workers} --log-interval 1000
        --prompt-type {prompt_type} {map_keys_flag}
    """,
)

# The runbook's OpenAI example: the same flags in another order.
PREPARE_OPENAI = Script(
    name="prepare_openai",
    program="./preprocess_data.py",
    flags="""
        --input {source} --tokenizer-name-or-path {tokenizer} --output-prefix {prefix} --workers {workers} --log-interval 1000
        --tokenizer-type PretrainedFromHF --handler-name {handler_name} --prompt-type {prompt_type} {map_keys_flag}
    """,
    habits=(faults.LLAMAS_TEMPLATE,),
)

PREPARE_PRETRAINING = Script(
    name="prepare_pretraining",
    program="./preprocess_data.py",
    flags="""
        --input {source} --tokenizer-name-or-path {tokenizer} --tokenizer-type PretrainedFromHF --handler-name {handler_name}
        --output-prefix {prefix} --json-keys text --workers {workers} --log-interval 1000
    """,
)

TRAIN_FULL = Script(
    name="train_full",
    program="posttrain_gpt.py",
    flags="""
        --use-mcore-models
        --tensor-model-parallel-size {tensor_model_parallel_size} --pipeline-model-parallel-size {pipeline_model_parallel_size}
        {spec} --kv-channels {kv_channels} --qk-layernorm --num-layers {num_layers} --hidden-size {hidden_size}
        --use-rotary-position-embeddings {untie} --num-attention-heads {num_attention_heads}
        --ffn-hidden-size {ffn_hidden_size} --max-position-embeddings {max_position_embeddings} --seq-length {seq_length}
        --train-iters {train_iters} --micro-batch-size {micro_batch_size} --global-batch-size {global_batch_size}
        --make-vocab-size-divisible-by 1 --use-flash-attn --padded-vocab-size {padded_vocab_size} --rotary-base {rotary_base}
        --disable-bias-linear --swiglu --tokenizer-type PretrainedFromHF --tokenizer-name-or-path {tokenizer}
        --normalization RMSNorm --position-embedding-type rope --norm-epsilon {norm_epsilon}
        --hidden-dropout 0 --attention-dropout 0 --no-gradient-accumulation-fusion --attention-softmax-in-fp32
        --exit-on-missing-checkpoint --no-masked-softmax-fusion --group-query-attention --num-query-groups {num_query_groups}
        --seed {seed} {precision} --min-lr {min_lr} --weight-decay {weight_decay} --lr-warmup-fraction {lr_warmup_fraction}
        --clip-grad {clip_grad} --adam-beta1 {adam_beta1} --adam-beta2 {adam_beta2} --no-load-optim --no-load-rng
        --lr {lr} {sequence_parallel}
        {not_linear} {use_distributed_optimizer} {context_parallel} {virtual_stages} {recompute} {experts}
        --data-path {data_path} --split {split}
        --log-interval {log_interval} --save-interval {save_interval} --eval-interval {train_iters} --eval-iters 0 --log-throughput
        --finetune --stage sft --is-instruction-dataset --prompt-type {prompt_type} --variable-seq-lengths
        --distributed-backend nccl --load {checkpoint} --save {output} {no_shared_storage}
    """,
    habits=(faults.ONE_SAVE, faults.NOT_DISTRIBUTED, faults.SHORT_TIMEOUT),
    faults=(*faults.TRAINING, faults.THROUGHPUT),
    native="{keep_last_flag}",
)

TRAIN_LORA = Script(
    name="train_lora",
    program="posttrain_gpt.py",
    flags="""
        --use-mcore-models {spec} --kv-channels {kv_channels} --qk-layernorm --tokenizer-name-or-path {tokenizer}
        --max-position-embeddings {seq_length} --num-layers {num_layers} --hidden-size {hidden_size}
        --ffn-hidden-size {ffn_hidden_size} --num-attention-heads {num_attention_heads} --tokenizer-type PretrainedFromHF
        --make-vocab-size-divisible-by 1 --padded-vocab-size {padded_vocab_size} --rotary-base {rotary_base} {untie}
        --disable-bias-linear --position-embedding-type rope --normalization RMSNorm --swiglu --attention-softmax-in-fp32
        --no-gradient-accumulation-fusion --group-query-attention --num-query-groups {num_query_groups}
        --data-path {data_path} --split {split} --load {checkpoint} --save {output}
        --log-interval {log_interval} --save-interval {save_interval} --eval-interval {train_iters} --eval-iters 0
        --no-load-optim --no-load-rng
        --use-flash-attn --use-fused-rotary-pos-emb --use-rotary-position-embeddings --use-fused-swiglu --use-fused-rmsnorm
        --no-masked-softmax-fusion {use_distributed_optimizer}
        --micro-batch-size {micro_batch_size} --global-batch-size {global_batch_size} --lr {lr}
        --lr-decay-style {lr_decay_style} --min-lr {min_lr} --weight-decay {weight_decay}
        --lr-warmup-fraction {lr_warmup_fraction} --attention-dropout 0.0 --init-method-std 0.01 --hidden-dropout 0.0
        --clip-grad {clip_grad} --adam-beta1 {adam_beta1} --adam-beta2 {adam_beta2} --initial-loss-scale 4096
        --seed {seed} {precision} --train-iters {train_iters} --seq-length {seq_length} {no_shared_storage}
        --finetune --stage sft --is-instruction-dataset --tokenizer-not-use-fast --prompt-type {prompt_type} --variable-seq-lengths
        --lora-r {lora_r} --lora-alpha {lora_alpha} --lora-fusion --lora-target-modules {lora_target_modules}
        --tensor-model-parallel-size {tensor_model_parallel_size} --pipeline-model-parallel-size {pipeline_model_parallel_size}
        {sequence_parallel} {context_parallel} {virtual_stages} {recompute} {experts}
        --distributed-backend nccl
    """,
    habits=(faults.ONE_SAVE, faults.NOT_SEQUENCE_PARALLEL, faults.UNSHARED, faults.FRAGMENTS),
    faults=(*faults.TRAINING, faults.NORM_EPSILON, faults.MAX_POSITIONS, faults.SLOW_TOKENIZER, faults.LORA_ONLY),
    native="{keep_last_flag}",
)

PRETRAIN = Script(
    name="pretrain",
    program="pretrain_gpt.py",
    flags="""
        --use-mcore-models {spec} --kv-channels {kv_channels} --qk-layernorm --num-layers {num_layers}
        --hidden-size {hidden_size} {untie} --num-attention-heads {num_attention_heads}
        --ffn-hidden-size {ffn_hidden_size} --max-position-embeddings {max_position_embeddings}
        --make-vocab-size-divisible-by 1 --padded-vocab-size {padded_vocab_size} --rotary-base {rotary_base}
        --disable-bias-linear --swiglu --tokenizer-type PretrainedFromHF --tokenizer-name-or-path {tokenizer}
        --normalization RMSNorm --position-embedding-type rope --norm-epsilon {norm_epsilon}
        --no-gradient-accumulation-fusion --attention-softmax-in-fp32 --exit-on-missing-checkpoint
        --group-query-attention --num-query-groups {num_query_groups} --no-load-optim --no-load-rng {sequence_parallel}
        --data-path {data_path} --split {split}
        --log-interval {log_interval} --save-interval {save_interval} --eval-interval {train_iters} --eval-iters 0 --log-throughput
        --use-flash-attn --use-fused-rotary-pos-emb --use-rotary-position-embeddings --use-fused-swiglu --use-fused-rmsnorm
        --no-masked-softmax-fusion {use_distributed_optimizer}
        --micro-batch-size {micro_batch_size} --global-batch-size {global_batch_size} --lr {lr} {not_linear} --min-lr {min_lr}
        --weight-decay {weight_decay} --lr-warmup-fraction {lr_warmup_fraction} --attention-dropout 0.0 --hidden-dropout 0.0
        --clip-grad {clip_grad} --adam-beta1 {adam_beta1} --adam-beta2 {adam_beta2} --seed {seed} {precision}
        --train-iters {train_iters} --seq-length {seq_length}
        --tensor-model-parallel-size {tensor_model_parallel_size} --pipeline-model-parallel-size {pipeline_model_parallel_size}
        --context-parallel-size {context_parallel_size} --context-parallel-algo {context_parallel_algo}
        {virtual_stages} {recompute} {experts}
        --distributed-backend nccl --load {checkpoint} --save {output} {no_shared_storage}
    """,
    habits=(faults.ONE_SAVE, faults.SHORT_TIMEOUT),
    faults=(*faults.TRAINING, faults.COUNT_FROM_ZERO),
    native="{keep_last_flag}",
)

_LOADED = """
    --use-mcore-models
    --tensor-model-parallel-size {tensor_model_parallel_size} --pipeline-model-parallel-size {pipeline_model_parallel_size}
    --load {checkpoint} {spec} --kv-channels {kv_channels} --qk-layernorm
"""

_SHAPE = """
    --num-layers {num_layers} --hidden-size {hidden_size} --use-rotary-position-embeddings {untie}
    --num-attention-heads {num_attention_heads} --ffn-hidden-size {ffn_hidden_size}
    --max-position-embeddings {max_position_embeddings} --seq-length {seq_length}
    --make-vocab-size-divisible-by 1 --padded-vocab-size {padded_vocab_size} --rotary-base {rotary_base} --micro-batch-size 1
    --disable-bias-linear --swiglu --use-rotary-position-embeddings
    --tokenizer-type PretrainedFromHF --tokenizer-name-or-path {tokenizer}
    --normalization RMSNorm --position-embedding-type rope --norm-epsilon {norm_epsilon} --hidden-dropout 0 --attention-dropout 0
"""

_NUMERICS = """
    --no-gradient-accumulation-fusion --attention-softmax-in-fp32 --exit-on-missing-checkpoint --no-masked-softmax-fusion
    --group-query-attention --num-query-groups {num_query_groups} --seed {seed} {precision} {experts}
"""

GENERATE = Script(
    name="generate",
    program="inference.py",
    flags=_LOADED + _SHAPE + "--max-new-tokens {max_new_tokens}" + _NUMERICS,
    habits=(faults.SHORT_TIMEOUT,),
    faults=(*faults.INFERENCE, faults.TASK, faults.ASKED_AS_TAUGHT),
)

EVALUATE_MMLU = Script(  # two new tokens: a letter, and what may stand before it
    name="evaluate_mmlu",
    program="evaluation.py",
    flags="--no-chat-template --task-data-path {tasks} --task mmlu"
    + _LOADED
    + "--use-flash-attn"
    + _SHAPE
    + "--max-new-tokens 2"
    + _NUMERICS
    + "{max_eval_samples_flag}",
    habits=(faults.FRAGMENTS, faults.SHORT_TIMEOUT),
    faults=faults.INFERENCE,
)

TENSORBOARD = Script(name="tensorboard", program="tensorboard", flags="--logdir={logdir} --port={tensorboard_port} --bind_all")
