"""The failure table: every signature that is known.

Order matters only where one line fits two rows: the first is taken.
"""

from __future__ import annotations

from qwen3_ops.mindspeed.diagnosis import arguments, checkpoints, data, devices
from qwen3_ops.mindspeed.diagnosis.signature import Signature

SIGNATURES: tuple[Signature, ...] = (*devices.SIGNATURES, *checkpoints.SIGNATURES, *data.SIGNATURES, *arguments.SIGNATURES)

BY_NAME = {signature.name: signature for signature in SIGNATURES}
