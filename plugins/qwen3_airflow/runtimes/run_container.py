"""The long-lived container of one run: its name, and how it is made, and made again after it was lost.

========================================  ==================================================
what happens                              what follows
========================================  ==================================================
the setup task runs twice                 the second finds the container
two workers make it at once               the engine knows the name: the second joins
it is killed, or its host restarts        its NPUs may be another's by then: the next stage
                                          makes it again as ``container.json`` says, with a
                                          lease of its own
a stage is cleared after the run's end    Airflow clears setup and teardown with it
========================================  ==================================================
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from docker.errors import APIError

from qwen3_airflow.ascend.leases import Lease, leased
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes import container
from qwen3_airflow.runtimes.base import Job, read_json
from qwen3_airflow.runtimes.engine import CONFLICT, Engine
from qwen3_airflow.runtimes.image import image_environment
from qwen3_ops.artifacts import write_atomically

SHARED = "qwen3-ops.shared"
"""Label of a container that lives as long as its DAG run."""

CONTAINER = "container.json"
"""In the run's folder: the job by which the container was asked for."""

_GONE = ("exited", "dead")


def shared_name(profile: HostProfile, run_dir: Path) -> str:
    """The container that the user has, or that of one run."""
    return profile.container_name or f"qwen3-shared-{hashlib.sha256(str(run_dir).encode()).hexdigest()[:12]}"


def start(engine: Engine, profile: HostProfile, job: Job) -> str:
    """Create and start the container of the run whose folder holds ``job.folder``, or find it running; its name.

    Raises:
        NpusBusy: try again later.
        BadInput: the image or a folder is not there.
    """
    run_dir = job.folder.parent
    name = shared_name(profile, run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / CONTAINER, json.dumps(job.to_json()))  # first: a setup that fails has no teardown
    found = engine.inspect(name)
    if found is not None and found["State"]["Status"] in _GONE:
        engine.remove(found["Id"])
        found = None
    if found is None:
        _create(engine, profile, job, name)
    try:
        engine.call("start", name)
    except APIError:  # a port of the profile that another run's container has, a device that is not there
        engine.remove(name, force=True)  # else it would keep its NPUs
        raise
    return name


def start_again(engine: Engine, profile: HostProfile, run_dir: Path) -> bool:
    """Make a container that was lost as it was made before; False where none ever was. Raises as :func:`start`."""
    asked = read_json(run_dir / CONTAINER)
    if asked is None:
        return False
    start(engine, profile, Job.from_json(asked))
    return True


def _create(engine: Engine, profile: HostProfile, job: Job, name: str) -> None:
    image = image_environment(engine, profile)
    try:
        with leased(engine, profile, job.npus) as lease:
            engine.call("create_container_from_config", _config(engine, profile, job, lease, image), name)
    except APIError as error:
        if error.status_code != CONFLICT:
            raise


def _config(engine: Engine, profile: HostProfile, job: Job, lease: Lease, image: dict[str, str]) -> dict[str, object]:
    options = container.host_options(job, profile, lease)
    bindings = port_bindings(profile, lease)
    if options["network_mode"] != "host" and bindings:
        options = {**options, "network_mode": "bridge", "port_bindings": bindings}
    config: dict[str, object] = engine.call(
        "create_container_config",
        image=profile.image,
        entrypoint=[profile.python],
        command=["-c", "import signal; signal.pause()"],
        environment=container.environment(job, profile, lease, image=image),
        labels={**container.labels(job, lease, attempt="", log_start=0), SHARED: "1"},
        user=profile.user,
        ports=list(bindings) or None,
        host_config=engine.call("create_host_config", **options),
    )
    return config


def port_bindings(profile: HostProfile, lease: Lease) -> dict[int, tuple[str, int]]:
    """The profile's ports, for each lease of a host others; a run without NPUs leaves them to those that train."""
    if profile.npus and not lease.npus:
        return {}
    first = lease.npus[0] if lease.npus else 0
    return {inside: ("127.0.0.1", outside + first) for inside, outside in profile.ports.items()}
