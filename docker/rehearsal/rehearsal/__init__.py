"""A MindSpeed-LLM without NPUs: every rank starts under torchrun, loads and saves its own shard; one of them computes.

The computing is done by qwen3-ops' native engine in the last rank, the one that prints the training lines. The other
ranks stay light: they import torch for gloo only, and not at all with ``QWEN3_REHEARSAL_GLOO=0``.
"""
