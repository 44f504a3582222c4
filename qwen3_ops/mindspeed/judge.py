"""From how the commands ended to how the stage ended."""

from __future__ import annotations

import signal
from typing import NoReturn

from qwen3_ops.errors import Interrupted, OpsError
from qwen3_ops.events import Events
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis
from qwen3_ops.mindspeed.diagnosis.report import as_event, block
from qwen3_ops.mindspeed.diagnosis.table import BY_NAME
from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.success import contradiction, missing_signs
from qwen3_ops.mindspeed.supervisor import Ended

_SYMPTOMS = ("no-output", "other-node")


class EngineFailed(OpsError):
    """MindSpeed-LLM failed; the exit status is that of the diagnosis."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.cause, source=diagnosis.name, remedy=diagnosis.remedy)
        self.diagnosis = diagnosis
        self.exit_code = diagnosis.exit_code


def judge(request: Request, ended: Ended, events: Events, *, is_whole: bool = True) -> None:
    """Return when the stage did all it was asked for; of one host among several only what its own command did.

    Raises:
        Interrupted: it was stopped before the end, or stopped itself by an exit flag.
        EngineFailed: anything else, after telling the diagnosis.
    """
    missing = missing_signs(request, ended.seen) if is_whole else []
    if ended.is_clean and not missing and contradiction(request, ended.seen) is None:
        return
    wanted = ended.stopped_by or next((sign for sign in ended.seen.signs if sign.startswith("stopped by")), None)
    if wanted is not None and ended.killed_for is None:
        raise _interrupted(request, ended, wanted)
    fail(why(request, ended, missing), events)


def fail(diagnosis: Diagnosis, events: Events) -> NoReturn:
    """Tell the diagnosis to people and programs.

    Raises:
        EngineFailed: always.
    """
    events.emit("diagnosis", **as_event(diagnosis))
    print(block(diagnosis), flush=True)
    raise EngineFailed(diagnosis)


def why(request: Request, ended: Ended, missing: list[str]) -> Diagnosis:
    """What the supervisor saw itself, or the earliest error in the lines, or what is missing.

    Silence and another node's end may follow from an error that was printed here: a conversion's loader waits for ever for
    its dead saver, and the other nodes lose their connections before torchrun ends this one.
    """
    told = ended.diagnoser.conclude()
    if told is not None and ended.killed_for is not None and ended.killed_for.name in _SYMPTOMS and _is_cause(told):
        return told
    seen = ended.killed_for or contradiction(request, ended.seen) or told
    if seen is not None:
        return seen
    if -signal.SIGKILL in ended.exit_codes:
        return Diagnosis.of("host-out-of-memory")
    return unexplained(f"exit status {' '.join(map(str, ended.exit_codes))}", missing)


def _is_cause(told: Diagnosis) -> bool:
    row = BY_NAME.get(told.name)
    return row is not None and not (row.wraps or row.waits)


def unexplained(how: str, missing: list[str]) -> Diagnosis:
    return Diagnosis(
        name="unexplained",
        cause=f"{how}, and no line that explains it; missing: {'; '.join(missing) or 'nothing'}",
        remedy="Read the engine's log from its end.",
        fault=None,
    )


def _interrupted(request: Request, ended: Ended, why: str) -> Interrupted:
    last = ended.seen.last
    saved = f"iteration {max(ended.seen.saved)} is saved" if ended.seen.saved else "this start has saved nothing"
    at = "" if last is None else f" after iteration {last.iteration} of {last.train_iters}"
    return Interrupted(
        f"MindSpeed-LLM was {why if why.startswith('stopped') else f'stopped by {why}'}{at}",
        value=saved,
        remedy="Start it again: it goes on from what is saved.",
    )
