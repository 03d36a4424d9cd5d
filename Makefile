# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF  # llama.cpp is compiled here, and pictures are not ours
MODEL := .cache/SmolLM2-135M-Instruct
BUNDLE := build/demo

.PHONY: demo test check lint types fast real board clean

demo: $(VENV)/installed   ## model, export, parity, latency, answers, report.html
	TQDM_DISABLE=1 $(BIN)/python -P -m smolship.tools.demo --model $(MODEL) --bundle $(BUNDLE)

test: check real          ## everything that CI runs

check: lint types fast    ## what to run often: no real model, under 3 minutes

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

fast: $(VENV)/installed
	# A file's bundles are made once, and files begin in their order: the last ones are short. Threads that wait for one
	# another must not do so in a loop: there are two processes. Compiled modules are kept for the many children.
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= \
		$(BIN)/python -m pytest -m "not real" -n 2 --dist loadfile --no-loadscope-reorder

real: $(VENV)/installed   # servers, an emulator and a cross-compiler come from packages of the system
	tests/device/install
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m real -n 2 --dist loadfile --durations 15

board: $(VENV)/installed  ## an emulated arm64 board's root and wheels, in .cache; tests/device/install has the packages
	$(BIN)/python -m tests.device.board_root

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf build .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
