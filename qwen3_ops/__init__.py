"""Qwen3 on Ascend: the runbook's stages as a library and the ``qwen3-ops`` command."""

__version__ = "0.1.0"
