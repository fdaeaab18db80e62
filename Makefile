# Two commands for a newcomer: `make demo` runs the main job, `make test` passes the tests.
# Both set up what they need in .venv; a second call finds it there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file's tests share what is costly to make, so they stay in one process; torch in each has one core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test coverage lint format bench clean

$(BIN)/.ready: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(BIN)/.ready
	mkdir -p demo
	test -f demo/pipeline.yaml || $(BIN)/posedreamer init demo/pipeline.yaml
	$(BIN)/posedreamer run demo/pipeline.yaml
	$(BIN)/posedreamer sheet demo/pipeline.yaml --out demo/contact_sheet.png

test: $(BIN)/.ready lint
	$(PYTEST) --durations=10

coverage: $(BIN)/.ready
	$(PYTEST) --cov --cov-report=term:skip-covered

lint: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BIN)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BIN)/.ready
	for bench in tests/bench/bench_*.py; do $(BIN)/python $$bench || exit 1; done

clean:
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
