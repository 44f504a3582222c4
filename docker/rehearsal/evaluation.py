"""Stands in for MindSpeed-LLM's script of this name: the same flags, lines and files, no NPU."""

from rehearsal.inference import main

if __name__ == "__main__":
    main("evaluate")
