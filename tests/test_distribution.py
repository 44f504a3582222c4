from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_in_the_distribution():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    standing = set()
    for base in (ROOT, ROOT / "plugins"):
        for top in ("qwen3_ops", "qwen3_airflow"):
            standing |= {".".join(init.parent.relative_to(base).parts) for init in (base / top).rglob("__init__.py")}
    assert listed == standing


def test_no_module_is_too_long():
    long = [
        path
        for room in ("qwen3_ops", "plugins", "dags")
        for path in (ROOT / room).rglob("*.py")
        if len(path.read_text().splitlines()) > 500
    ]
    assert long == []
