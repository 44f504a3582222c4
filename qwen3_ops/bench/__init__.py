"""Measurements that anyone can repeat: ``qwen3-ops bench``."""
