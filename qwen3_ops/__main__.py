"""``python -m qwen3_ops``: the ``qwen3-ops`` command."""

from qwen3_ops.cli import main

if __name__ == "__main__":
    main()
