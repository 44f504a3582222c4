"""Calls of a Docker Engine that may be away for a while.

Imports no Airflow: the processes that keep a stopped container's grace could not, because a
task's environment hides the database from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig
from requests.exceptions import RequestException
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from docker import APIClient
from qwen3_airflow.runtimes.base import RuntimeUnavailable

NOT_FOUND, CONFLICT = 404, 409
_NOT_NOW = (502, 503, 504)  # of a dockerd whose containerd is away, or of a proxy before it

CALL_TIMEOUT = 60  # seconds for one call of the engine; none of ours waits for a container


@dataclass(frozen=True, kw_only=True)
class EngineAddress:
    """Where an engine listens; the certificates are files, so nothing here is secret."""

    url: str
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def connect(self) -> APIClient:
        return APIClient(base_url=self.url, version="auto", tls=self.tls(), timeout=CALL_TIMEOUT)

    def tls(self) -> Any:
        """For docker's ``APIClient``; False without certificates."""
        if self.ca_cert and self.client_cert and self.client_key:
            return _TLS(ca_cert=self.ca_cert, client_cert=(self.client_cert, self.client_key), verify=True)
        return False


class _TLS(TLSConfig):  # type: ignore[misc]
    """The connection's files and nothing else: requests lets REQUESTS_CA_BUNDLE outweigh a client's own authority."""

    def configure_client(self, client: APIClient) -> None:
        super().configure_client(client)
        client.trust_env = False


class Engine:
    """The engine's client, made anew after the engine was away.

    Args:
        connect: makes a client, or raises RuntimeUnavailable.
        connect_to_pull: makes one that is logged in to the image's registry; its login is asked
            for a pull only, so that a registry's troubles are none of the containers that run.
        address: for processes that outlive this one.
        patience: seconds for which a call is repeated while the engine does not answer; only
            calls that may be repeated come here: containers are created by name, so that a
            second creation finds the first.
    """

    def __init__(
        self,
        connect: Callable[[], APIClient],
        *,
        address: EngineAddress,
        patience: float,
        connect_to_pull: Callable[[], APIClient] | None = None,
    ) -> None:
        self.address = address
        self._connect = connect
        self._connect_to_pull = connect_to_pull or connect
        self._patience = patience
        self._client: APIClient | None = None

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """``APIClient.verb``.

        Raises:
            RuntimeUnavailable: no answer within the patience.
            docker.errors.APIError: the engine's own answer.
        """
        return self._patiently(lambda: self._call_once(verb, *args, **kwargs))

    def pull(self, image: str) -> str:
        """Pull an image; what the engine told of its progress, a JSON object a line. Raises as :meth:`call`."""
        return str(self._patiently(lambda: self._pull_once(image)))

    def start(self, container: str) -> None:
        """Start a container that was never started. Raises as :meth:`call`.

        A call whose answer was lost is not repeated blindly: the container may have run and
        ended meanwhile, and would run once more.
        """
        self._patiently(lambda: self._start_once(container))

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def inspect(self, container: str) -> dict[str, Any] | None:
        """What the engine knows of a container; None when there is none, or none soon."""
        try:
            found: dict[str, Any] = self.call("inspect_container", container)
        except NotFound:
            return None
        return None if found["State"]["Status"] == "removing" else found

    def remove(self, container: str, *, force: bool = False) -> None:
        """Remove a container, unless someone else does or did."""
        try:
            self.call("remove_container", container, force=force, v=True)
        except APIError as error:
            if error.status_code not in (NOT_FOUND, CONFLICT):
                raise

    def signal(self, container: str, name: str) -> None:
        """Send a signal, unless the container has ended."""
        try:
            self.call("kill", container, name)
        except APIError as error:
            if error.status_code not in (NOT_FOUND, CONFLICT):
                raise

    def _patiently(self, once: Callable[[], Any]) -> Any:
        for attempt in Retrying(
            retry=retry_if_exception_type(RuntimeUnavailable),
            wait=wait_exponential(multiplier=0.3, max=10),
            stop=stop_after_delay(self._patience),
            reraise=True,
        ):
            with attempt:
                return once()
        raise AssertionError("tenacity either returns or raises")

    def _call_once(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        with self._absence_told():
            if self._client is None:
                self._client = self._connect()
            return getattr(self._client, verb)(*args, **kwargs)

    def _start_once(self, container: str) -> None:
        if self._call_once("inspect_container", container)["State"]["Status"] == "created":
            self._call_once("start", container)

    def _pull_once(self, image: str) -> Any:
        with self._absence_told(), closing(self._connect_to_pull()) as client:
            return client.pull(image)

    @contextmanager
    def _absence_told(self) -> Iterator[None]:
        try:
            yield
        except (RequestException, DockerException, OSError) as error:  # refused, timed out, cut off
            if isinstance(error, APIError) and error.status_code not in _NOT_NOW:
                raise
            self.close()
            raise RuntimeUnavailable(f"the Docker Engine at {self.address.url} does not answer: {error}") from error
