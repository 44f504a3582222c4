"""Checkpoints: Hugging Face folders and Megatron-mcore checkpoints, exactly and safely."""
