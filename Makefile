# `make story` and `make test` need nothing but Python 3.11 or newer: the first target that runs makes .venv.
PYTHON ?= python3
RUN = HF_HUB_OFFLINE=1 .venv/bin/python
MINI = configs/storyworld-mini
OUT ?= runs/storyworld-mini

.PHONY: install story test lint miniature evaluate benchmark clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --editable ".[dev]"
	touch $@

story: install
	$(RUN) -m minigpt5 story "A red fox wakes up in the forest." --image docs/images/fox.png --steps 5 --seed 0 --out story

test: install
	$(RUN) -m pytest -n auto --dist loadfile

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# Retrains storyworld-mini from nothing, stage by stage; a stage that was stopped goes on where it was.
miniature: install
	$(RUN) training/make_miniature.py --configs $(MINI) --out $(OUT)

evaluate: install
	$(RUN) evaluation/evaluate_storyworld.py --model storyworld-mini

benchmark: install
	$(RUN) benchmarks/benchmark_miniature.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache
