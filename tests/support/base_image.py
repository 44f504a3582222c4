"""A base image for docker/'s Dockerfiles, made of this machine: they build without a registry and without an index.

It holds this Python, pip, a shell and the few programs that the Dockerfiles call, and a folder of wheels in an index's
place: the packages that `qwen3-ops` itself needs are this machine's, the heavy ones (torch, Airflow, ...) are empty
wheels of their pinned versions. So it shows that the Dockerfiles copy, install and start what they should, and nothing
about the public bases.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import docker

ROOT = Path(__file__).resolve().parents[2]
BASE = "qwen3-ops-test-base:1"
PYTHON = f"{sys.base_prefix}/bin/python3"
TORCH = "2.6.0"
"""What stands in the base as torch, which a build must not replace."""

_PROGRAMS = ("sh", "env", "grep", "rm", "chown", "chmod", "mkdir", "cat", "useradd")
_NOT_WANTED = {
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "EXTERNALLY-MANAGED",
}
_ENVIRONMENT = (
    "PATH={prefix}/bin:/usr/local/bin:/usr/bin:/usr/sbin",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/wheels",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
    "PIP_NO_COMPILE=1",
)


def import_base(client: docker.APIClient) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add_folders(tar)
        _add_programs(tar)
        _add_python(tar)
        for name, content in _wheels():
            _add_bytes(tar, f"wheels/{name}", content)
    repository, tag = BASE.split(":")
    changes = [f"ENV {variable.format(prefix=sys.base_prefix)}" for variable in _ENVIRONMENT]
    client.import_image_from_data(archive.getvalue(), repository=repository, tag=tag, changes=changes)


def _add_folders(tar: tarfile.TarFile) -> None:
    for name in (
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/sbin",
        "etc/default",
        "root",
        "home",
        "tmp",
        "proc",
        "sys",
        "dev",
        "opt/airflow/dags",
    ):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        tar.addfile(folder)
    for name in ("bin", "lib", "lib64", "sbin"):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
        tar.addfile(link)
    _add_bytes(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nairflow:x:50000:0::/home/airflow:/bin/sh\n")
    _add_bytes(tar, "etc/group", b"root:x:0:\n")
    _add_bytes(tar, "etc/shadow", b"root:*:1::::::\n")


def _add_programs(tar: tarfile.TarFile) -> None:
    """The programs and whatever library they and Python's own modules are linked with."""
    found = [path for name in _PROGRAMS if (path := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"))]
    assert len(found) == len(_PROGRAMS), found
    modules = [str(path) for path in Path(sys.base_prefix, "lib").glob("python3*/lib-dynload/*.so")]
    modules += [str(path) for name in _real_wheels() for _, path in _installed_files(name) if ".so" in path.suffixes]
    for path in found:
        tar.add(os.path.realpath(path), f"usr/bin/{Path(path).name}")
    for library in sorted(_libraries([*found, os.path.realpath(sys.executable), *modules])):
        tar.add(os.path.realpath(library), _unified(library))


def _libraries(programs: Iterable[str]) -> set[str]:
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    return {path for path in re.findall(r"(/\S+) \(0x", said) if not path.startswith(sys.base_prefix)}


def _unified(path: str) -> str:
    """Where a library lies when /lib is a link to /usr/lib."""
    return path[1:] if path.startswith("/usr/") else f"usr{path}" if path.startswith("/lib") else path[1:]


def _add_python(tar: tarfile.TarFile) -> None:
    prefix = Path(sys.base_prefix)
    library = Path(os.__file__).parent
    tar.add(os.path.realpath(sys.executable), f"{PYTHON[1:]}")
    for alias in ("python", f"python3.{sys.version_info.minor}"):
        link = tarfile.TarInfo(f"{prefix}/bin/{alias}"[1:])
        link.type, link.linkname = tarfile.SYMTYPE, "python3"
        tar.addfile(link)
    for shared in prefix.glob("lib/libpython3*.so*"):
        tar.add(shared, str(shared)[1:])
    tar.add(library, str(library)[1:], filter=lambda item: None if set(Path(item.name).parts) & _NOT_WANTED else item)
    packages, programs = _install_paths()
    _add_installed(tar, "pip", packages)
    _add_bytes(tar, f"{programs}/pip", f'#!/bin/sh\nexec {PYTHON} -m pip "$@"\n'.encode(), mode=0o755)
    record = f"{packages}/torch-{TORCH}.dist-info"
    _add_bytes(tar, f"{record}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH}\n".encode())
    _add_bytes(tar, f"{record}/RECORD", b"")
    for folder in (packages, programs):  # as in Airflow's image, where another user than root installs
        open_to_all = tarfile.TarInfo(folder)
        open_to_all.type, open_to_all.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(open_to_all)


def _install_paths() -> tuple[str, str]:
    """Where pip would put packages and programs, which Debian's Python has elsewhere than others."""
    code = "import sysconfig; print(sysconfig.get_path('purelib')[1:], sysconfig.get_path('scripts')[1:])"
    said = subprocess.run([os.path.realpath(sys.executable), "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    packages, programs = said.split()
    return packages, programs


def _add_installed(tar: tarfile.TarFile, name: str, folder: str) -> None:
    for file, path in _installed_files(name):
        tar.add(path, f"{folder}/{file}")


def _installed_files(name: str) -> Iterator[tuple[str, Path]]:
    for file in metadata.files(name) or []:
        path = Path(str(file.locate()))
        if ".." not in file.parts and path.is_file():
            yield str(file), path


def _wheels() -> Iterator[tuple[str, bytes]]:
    """(file name, content): real ones of what qwen3-ops needs to start and to be built, empty ones of its extras."""
    needed = _real_wheels()
    for name in sorted(needed):
        yield _repacked(name)
    extras = "\n".join(_setup()["options.extras_require"][extra] for extra in ("native", "airflow")).split("\n")
    pinned = dict(_pins())
    named = {canonicalize_name(Requirement(line).name) for line in extras if line.strip()} | {"torch", "apache-airflow"}
    for name in sorted((named | {"docker", "apache-airflow-providers-postgres"}) - needed):
        yield _wheel(name, pinned.get(name) or {"torch": "2.13.0"}.get(name, "6.0.0"))


@cache
def _real_wheels() -> set[str]:
    """What is needed to build qwen3-ops and to start it."""
    return _closure(["setuptools", *_setup()["options"]["install_requires"].split("\n")])


def _setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def _closure(requirements: Iterable[str]) -> set[str]:
    names: set[str] = set()
    waiting = [Requirement(line) for line in requirements if line.strip()]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        waiting += map(Requirement, metadata.requires(name) or [])
    return names


def _pins() -> Iterator[tuple[str, str]]:
    """name, version of constraints.txt for this Python."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            requirement = Requirement(line.split(" #")[0])
            if requirement.marker is None or requirement.marker.evaluate():
                yield canonicalize_name(requirement.name), next(iter(requirement.specifier)).version


def _repacked(name: str) -> tuple[str, bytes]:
    """A wheel of an installed package."""
    found = metadata.distribution(name)
    tag = next(tag for tag in re.findall(r"^Tag: (\S+)", found.read_text("WHEEL") or "", re.MULTILINE) if not tag.startswith("py2"))
    files = {
        file: path.read_bytes() for file, path in _installed_files(name) if not file.endswith(("RECORD", "INSTALLER", "REQUESTED", ".pyc"))
    }
    return _packed(found.metadata["Name"], found.version, tag, files)


def _wheel(name: str, version: str) -> tuple[str, bytes]:
    """An empty package."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    said = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tag = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return _packed(name, version, "py3-none-any", {f"{info}/METADATA": said.encode(), f"{info}/WHEEL": tag.encode()})


def _packed(name: str, version: str, tag: str, files: dict[str, bytes]) -> tuple[str, bytes]:
    (info,) = {top for file in files if (top := file.split("/")[0]).endswith(".dist-info")}
    archive = io.BytesIO()
    record = []
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        for file, content in files.items():
            zipped.writestr(file, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(content)}")
        zipped.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return f"{re.sub(r'[-_.]+', '_', name)}-{version}-{tag}.whl", archive.getvalue()


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    tar.addfile(file, io.BytesIO(content))
