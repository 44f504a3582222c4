"""The connection type ``ascend``: where the Docker Engine of a host is and what its containers get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from pydantic import ValidationError

from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.ascend.recipes import DEFAULT_HOST_RECIPE, HOST_RECIPES
from qwen3_airflow.runtimes.base import RuntimeUnavailable
from qwen3_ops.errors import BadInput

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from docker import APIClient
    from qwen3_airflow.runtimes.engine import EngineAddress

DEFAULT_CONN_ID = "ascend_default"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"


class AscendHook(BaseHook):
    """A Docker Engine and a host profile.

    The connection's host is the engine's URL (``unix://``, ``tcp://``, ``ssh://``). Its extras:

    - ``recipe``, ``image``, ``data_roots``, ``profile``: the host profile, see :func:`profile_from`;
    - ``tls_ca_cert``, ``tls_client_cert``, ``tls_client_key``: files, all or none;
    - ``docker_conn_id``: Airflow's Docker connection that logs in to the image's registry, for pulls.
    """

    conn_name_attr = "ascend_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "ascend"
    hook_name = "Ascend host"

    def __init__(self, ascend_conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.ascend_conn_id = ascend_conn_id
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = self.get_connection(self.ascend_conn_id)
        return self._connection

    def get_conn(self) -> APIClient:
        """A new client of the engine.

        Raises:
            RuntimeUnavailable: it does not answer.
        """
        return self._connect(docker_conn_id=None)

    def get_conn_to_pull(self) -> APIClient:
        """A new client that is logged in to the registry, where the connection names one.

        Raises:
            RuntimeUnavailable: the engine does not answer.
            docker.errors.APIError: the registry does not, or does not accept the login.
        """
        return self._connect(docker_conn_id=self.connection.extra_dejson.get("docker_conn_id") or None)

    def _connect(self, *, docker_conn_id: str | None) -> APIClient:
        from airflow.providers.docker.hooks.docker import DockerHook

        from qwen3_airflow.runtimes.engine import CALL_TIMEOUT

        address = self.address()
        hook = DockerHook(
            docker_conn_id=docker_conn_id,
            base_url=address.url,
            tls=address.tls(),
            timeout=CALL_TIMEOUT,
        )
        try:
            return hook.get_conn()
        except AirflowNotFoundException:  # the registry's connection lacks something
            raise
        except AirflowException as error:
            raise RuntimeUnavailable(f"the Docker Engine at {address.url} does not answer: {error}") from error

    def address(self) -> EngineAddress:
        """Where the engine listens, for processes that have no Airflow.

        Raises:
            BadInput: some of the three TLS files are named and others not.
        """
        from qwen3_airflow.runtimes.engine import EngineAddress

        extra = self.connection.extra_dejson
        files = {name: extra.get(f"tls_{name}") or None for name in ("ca_cert", "client_cert", "client_key")}
        missing = [f"tls_{name}" for name, file in files.items() if file is None]
        if 0 < len(missing) < len(files):
            raise BadInput(
                "TLS needs all three of its files",
                value=f"missing: {', '.join(missing)}",
                source=f"connection {self.ascend_conn_id}",
                remedy="Name them all, or none for an engine without TLS.",
            )
        return EngineAddress(url=_engine_url(self.connection), **files)

    def profile(self) -> HostProfile:
        """The recipe's profile with the connection's values over it.

        Raises:
            BadInput: the connection's extras are no profile.
        """
        return profile_from(self.connection.extra_dejson, source=f"connection {self.ascend_conn_id}")


def _engine_url(connection: Connection) -> str:
    """The connection's host, whose scheme and port Airflow's URI form keeps apart."""
    host = connection.host or DEFAULT_ENGINE
    if host.startswith("/"):
        return f"unix://{host}"
    whole = host if "://" in host else f"tcp://{host}"
    url = urlsplit(whole)
    port = connection.port or (2375 if url.scheme == "tcp" else None)  # ssh may have one in its own configuration
    if url.scheme not in ("tcp", "ssh") or url.port or port is None:
        return whole
    return f"{url.scheme}://{url.netloc}:{port}"


def profile_from(extra: Mapping[str, Any], *, source: str) -> HostProfile:
    """The profile that a connection's extras describe.

    Args:
        extra: ``recipe`` to start from, ``image`` and ``data_roots``, which every site sets, and
            ``profile``, an object with any other field of HostProfile.

    Raises:
        BadInput: a value is wrong; ``source`` says whose.
    """
    recipe = extra.get("recipe") or DEFAULT_HOST_RECIPE
    if recipe not in HOST_RECIPES:
        raise BadInput("unknown host recipe", value=recipe, source=source, remedy=f"Choose one of {', '.join(HOST_RECIPES)}.")
    given = {name: extra[name] for name in ("image", "data_roots") if extra.get(name)}
    try:
        overrides = extra.get("profile") or {}
        overrides = json.loads(overrides) if isinstance(overrides, str) else dict(overrides)
        return HostProfile.model_validate({**HOST_RECIPES[recipe]().model_dump(), **given, **overrides})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'profile'}: {item['msg']}" for item in error.errors())
    except (TypeError, ValueError) as error:
        wrong = f"profile is no JSON object: {error}"
    raise BadInput("the host profile is wrong", value=wrong, source=source, remedy="Mend the connection's extras.")
