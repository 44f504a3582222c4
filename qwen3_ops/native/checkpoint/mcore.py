"""Megatron-mcore checkpoints: opened as whole tensors, written as shards."""

from qwen3_ops.native.checkpoint.mcore_reader import McoreCheckpoint, open_checkpoint
from qwen3_ops.native.checkpoint.mcore_writer import write_checkpoint
from qwen3_ops.native.checkpoint.tracker import read_tracker

__all__ = ["McoreCheckpoint", "open_checkpoint", "read_tracker", "write_checkpoint"]
