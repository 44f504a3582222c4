"""The environment that a person has who logs in to the container: conda, CANN, LD_PRELOAD.

The runbook's commands are typed into an interactive shell, whose ``.bashrc`` activates conda and sources CANN's
``set_env.sh``; ``docker exec`` and ``docker run`` see nothing of it. So one fixed login shell is run, its environment
read, and the command started with that, without a shell of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping

from qwen3_ops.errors import BadInput

LOGIN_SHELL = "QWEN3_OPS_LOGIN_SHELL"
"""Environment variable: a shell such as ``/bin/bash`` (the default); empty: the environment is taken as it is."""

_SCRIPT = """
for file in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
    case ${ASCEND_TOOLKIT_HOME:+set}${ATB_HOME_PATH:+both} in setboth) break ;; esac
    [ -r "$file" ] && . "$file"
done
env -0 >"$QWEN3_OPS_ENVIRONMENT"
"""
_SECONDS = 120.0
_OWN = {"QWEN3_OPS_ENVIRONMENT", "_", "SHLVL", "PWD", "OLDPWD"}


def login_environment(base: Mapping[str, str] = os.environ, *, seconds: float = _SECONDS) -> dict[str, str]:
    """``base`` and what a login shell makes of it.

    Raises:
        BadInput: the shell is not there, does not end, or writes no environment.
    """
    shell = base.get(LOGIN_SHELL, "/bin/bash")
    if not shell:
        return dict(base)
    with tempfile.NamedTemporaryFile() as file:
        environment = {**base, "QWEN3_OPS_ENVIRONMENT": file.name}
        said = _run([shell, "-l", "-i", "-c", _SCRIPT], environment, seconds=seconds)
        found = dict(item.split("=", 1) for item in file.read().decode(errors="surrogateescape").split("\0") if "=" in item)
    if not found:
        raise BadInput(
            "the login shell left no environment",
            value=said[-500:] or "it said nothing",
            source=shell,
            remedy=f"Look at .bashrc and .profile of this user, or set {LOGIN_SHELL} to an empty value.",
        )
    return {name: value for name, value in found.items() if name not in _OWN or name in base}


def _run(argv: list[str], environment: dict[str, str], *, seconds: float) -> str:
    """What it printed. It gets a session of its own, because an interactive shell would take the terminal, and a file
    to print to, because what it leaves running would keep a pipe open.
    """
    with tempfile.TemporaryFile() as printed:
        try:
            process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise BadInput(
                "the login shell can not be started",
                value=error,
                source=LOGIN_SHELL,
                remedy="Name a shell that this image has, or set it to an empty value.",
            ) from error
        try:
            process.wait(timeout=seconds)
        except BaseException as error:  # also a signal that ends the stage meanwhile
            with contextlib.suppress(ProcessLookupError):  # it had just ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BadInput(
                    "the login shell does not end",
                    value=f"{seconds:.0f} s",
                    source=" ".join(argv[:3]),
                    remedy="Look at .bashrc and .profile of this user for what waits: a prompt, a network share.",
                ) from None
            raise
        printed.seek(0)
        return printed.read().decode(errors="replace")
