"""Tables for people, one module a subject."""

from qwen3_ops.report.commands import print_command, print_runbook
from qwen3_ops.report.flags import print_fields, print_flags
from qwen3_ops.report.plan import print_forecast, print_plan, print_sweep

__all__ = ["print_command", "print_fields", "print_flags", "print_forecast", "print_plan", "print_runbook", "print_sweep"]
