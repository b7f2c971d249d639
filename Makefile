# Everything a contributor or CI runs. `make demo` and `make test` need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test types style emulate docs fuzz faults check-python clean

demo: $(VENV)/.installed
	$(BIN)/stres demo

# Both checks at once, since each keeps one core busy; then the tests, on two.
test: $(VENV)/.installed
	$(MAKE) --no-print-directory --jobs 2 --output-sync types style
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

types: $(VENV)/.installed
	$(BIN)/mypy

style: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m pip check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# What `make test` leaves out of the GPU kernels' tests: minutes on an emulator of a GPU, and of compiling, also with the
# Triton of the oldest torch that is supported (docs/gpu.md).
emulate: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target build/triton-oldest triton==3.6.0
	STRES_EMULATE=1 $(BIN)/python -m pytest -q -n 2 -m emulate tests/optical_flow

# The documentation as a site, in build/site; a broken link or a docstring that does not parse fails.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Thousands of damaged inputs through the real code (docs/reliability.md); INPUTS and SEED say how many and which.
INPUTS ?= 5000
SEED ?= 0
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz.fuzzing --inputs $(INPUTS) --seed $(SEED)

# Kills the commands 200 times, and more: half an hour on two cores (docs/reliability.md).
faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults.many

$(VENV)/.installed: pyproject.toml | check-python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
# Most of torch's download is CUDA. Without a GPU its CPU build will do, if the index that has it can be reached.
	@if nvidia-smi --list-gpus > /dev/null 2>&1; then \
		echo "an NVIDIA GPU was found: torch comes from PyPI, with CUDA"; \
	elif $(BIN)/python -c 'import urllib.request as u; u.urlopen("$(TORCH_INDEX)/torch/", timeout=10)' 2> /dev/null; then \
		echo "no NVIDIA GPU was found: torch's CPU build comes from $(TORCH_INDEX)"; \
		$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) torch torchvision; \
	else \
		echo "no NVIDIA GPU was found, but $(TORCH_INDEX) cannot be reached: torch comes from PyPI, with CUDA"; \
	fi
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "stres needs Python 3.11 or newer; $(PYTHON) is older. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
