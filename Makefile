# Everything a visitor needs. Choices: PYTHON=python3.12, TORCH=path or requirement, TORCH_INDEX_URL=index of a torch build, PORT=8080, RECIPE=name,
# BASE=image of the Ascend host for `make image`.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
MADE := .venv/made-from-constraints

.DEFAULT_GOAL := help
.PHONY: help venv demo ui rehearse test bench lint image clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(MADE) ## build .venv from the pinned constraints; nothing to do when it stands

$(MADE): setup.cfg pyproject.toml constraints.txt scripts/make-venv
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" TORCH_INDEX_URL="$(TORCH_INDEX_URL)" scripts/make-venv .venv
	@touch $@

demo: $(MADE) ## run the whole pipeline on the tiny twin through Airflow, show what it made
	@$(BIN)/python scripts/demo.py

ui: $(MADE) ## open Airflow on this machine, the twin's values in the form; Ctrl-C ends it
	@$(BIN)/python scripts/ui.py $(if $(PORT),--port $(PORT))

rehearse: $(MADE) ## run a recipe's layout through the mindspeed engine, torchrun and all, without NPUs; RECIPE=qwen3-14b-lora
	@$(BIN)/python scripts/rehearse.py $(if $(RECIPE),--recipe $(RECIPE))

test: $(MADE) ## run every test: those that need no server first, then a real Docker Engine and a real Airflow side by side
	@failed=0; \
	$(BIN)/python -m pytest -q -rs -n auto -m "not e2e and not docker" || failed=1; \
	beside=$$(mktemp); \
	$(BIN)/python -m pytest -q -rs -m "docker or (e2e and not server)" >$$beside 2>&1 & \
	$(BIN)/python -m pytest -q -rs -m server || failed=1; \
	wait $$! || failed=1; \
	cat $$beside; rm $$beside; \
	exit $$failed

bench: $(MADE) ## measure data, checkpoints, training steps, MMLU and the reading of logs
	$(BIN)/qwen3-ops bench data
	$(BIN)/qwen3-ops bench ckpt
	$(BIN)/qwen3-ops bench train
	$(BIN)/qwen3-ops bench mmlu
	$(BIN)/qwen3-ops bench log

lint: $(MADE) ## ruff and mypy, as pre-commit runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

image: ## build the images of docker/: cpu, airflow, and ascend where BASE names the site's image
	docker build -f docker/Dockerfile.cpu -t qwen3-ops:cpu .
	docker build -f docker/Dockerfile.airflow -t qwen3-ops:airflow .
	$(if $(BASE),docker build -f docker/Dockerfile.ascend --build-arg BASE="$(BASE)" $(if $(BASE_PYTHON),--build-arg PYTHON="$(BASE_PYTHON)") -t qwen3-ops:ascend .)

clean: ## remove what demo, ui and tests left; .venv stays
	rm -rf .demo .airflow build .pytest_cache .mypy_cache .ruff_cache
	find dags plugins qwen3_ops scripts tests -name __pycache__ -prune -exec rm -rf {} +
