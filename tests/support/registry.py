"""A stand-in for an image registry on loopback: one image of one empty layer, for whoever knows the password."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves ``IMAGE:1`` by the registry API v2.

    Attributes:
        asked: of every request its path and the user and password that came with it, or None.
    """

    IMAGE = "site/ascend"

    def __init__(self, *, login: str, password: str) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self._right = f"{login}:{password}"
        self._served = _image()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def image(self) -> str:
        return f"{self.address}/{self.IMAGE}:1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(registry) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def _answer(self, *, with_body: bool) -> None:
                given = self.headers.get("Authorization", "")
                who = base64.b64decode(given.removeprefix("Basic ")).decode() if given.startswith("Basic ") else None
                registry.asked.append((self.path, who))
                if who != registry._right:
                    self._send(401, "application/json", b'{"errors": [{"code": "UNAUTHORIZED"}]}', with_body=with_body)
                elif self.path == "/v2/":
                    self._send(200, "application/json", b"{}", with_body=with_body)
                elif (found := registry._served.get(self.path)) is not None:
                    self._send(200, *found, with_body=with_body)
                else:
                    self._send(404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', with_body=with_body)

            def _send(self, status: int, kind: str, body: bytes, *, with_body: bool) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Docker-Content-Digest", _digest(body))
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="stand-in"')
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *said: object) -> None:
                """The test looks at `asked`."""

        return Handler


def _image() -> dict[str, tuple[str, bytes]]:
    """Path -> media type and content."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        folder = tarfile.TarInfo("opt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    packed = gzip.compress(layer.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Env": ["MADE_BY=stand-in"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    ).encode()  # fmt: skip
    kinds = {"application/vnd.docker.container.image.v1+json": config, "application/vnd.docker.image.rootfs.diff.tar.gzip": packed}
    described = [{"mediaType": kind, "size": len(content), "digest": _digest(content)} for kind, content in kinds.items()]
    manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": described[0], "layers": described[1:]}).encode()
    blobs = {f"/v2/{Registry.IMAGE}/blobs/{_digest(content)}": ("application/octet-stream", content) for content in kinds.values()}
    manifests = {f"/v2/{Registry.IMAGE}/manifests/{name}": (_MANIFEST, manifest) for name in ("1", _digest(manifest))}
    return {**blobs, **manifests}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
