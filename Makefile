# `make story` and `make test` need nothing but Python 3.11 or newer: the first target that runs makes .venv.
PYTHON ?= python3
RUN = HF_HUB_OFFLINE=1 .venv/bin/python
MINI = configs/storyworld-mini
OUT ?= runs/storyworld-mini

UV = .venv/bin/uv
UV_VERSION = $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)

.PHONY: install lock story test test-slow test-newest test-oldest lint docs dist miniature claims evaluate benchmark clean

# Exactly the versions of the lock, hashes checked.
install: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	$(UV) pip install --quiet --python .venv/bin/python --constraints requirements.lock --build-constraints requirements.lock --editable ".[dev]"
	touch $@

# Resolves the lock anew: every extra, Python 3.11 to 3.14, Linux and macOS. It names no index.
lock: install
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml --output-file requirements.lock

story: install
	$(RUN) -m minigpt5 story "A red fox wakes up in the forest." --image docs/images/fox.png --steps 5 --temperature 1 --seed 3 --out story

test: install
	$(RUN) -m pytest -n auto --dist loadfile

# The tests that take minutes, and more examples of the property tests.
test-slow: install
	$(RUN) -m pytest -n auto --dist loadfile -m slow

# The bounds in pyproject.toml, both ends, in environments of their own.
test-newest: RESOLUTION = highest
test-oldest: RESOLUTION = lowest-direct
test-newest test-oldest: install
	$(UV) venv --quiet --clear --python .venv/bin/python .venv-$@
	$(UV) pip install --quiet --python .venv-$@/bin/python --resolution $(RESOLUTION) --editable ".[dev]"
	HF_HUB_OFFLINE=1 .venv-$@/bin/python -m pytest -n auto --dist loadfile

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --pythonpath .venv/bin/python

# The site of docs/, in build/site.
docs: install
	$(UV) pip install --quiet --python .venv/bin/python --constraints requirements.lock --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --site-dir build/site

# Wheel and source archive, in dist/; with TAG=vX.Y.Z only if that is the version.
dist: install
	$(if $(TAG),test "$(TAG)" = "v$$(.venv/bin/python -c 'import minigpt5; print(minigpt5.__version__)')")
	$(UV) build --quiet --clear --build-constraints requirements.lock --out-dir dist

# Retrains storyworld-mini from nothing, stage by stage; a stage that was stopped goes on where it was.
miniature: install
	$(RUN) training/miniature/make_miniature.py --configs $(MINI) --out $(OUT)

# Trains and measures what decides the paper's claims, by docs/claims-plan.md; what was stopped goes on where it was.
claims: install
	$(RUN) evaluation/reproduce_claims.py --work runs/claims

evaluate: install
	$(RUN) evaluation/evaluate_storyworld.py --model storyworld-mini --processes 2

benchmark: install
	$(RUN) benchmarks/benchmark_miniature.py

clean:
	rm -rf .venv .venv-test-* .pytest_cache .ruff_cache build dist
