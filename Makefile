# Two commands set up everything: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo
OLD ?= 18d3d41
DEMO := --strategy "FineTuning()" --strategy "EWC(strength=1000.0)" --strategy "SI(strength=10.0)" \
	--strategy "LwF()" --strategy "Replay(size=200)" --learner "NearestClassMean()" --baselines joint \
	--seeds 5 --eval-every 20 --eval-rows 300

.PHONY: install demo test lint docs reference methods families multitask transfer bench gpu clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,docs,export,track]"
	touch $@

demo: install
	$(BIN)/lifelong compare split-digits --setting task $(DEMO) --out $(OUT) --report report-task.html
	$(BIN)/lifelong compare split-digits --setting class $(DEMO) --out $(OUT) --report report-class.html

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

# the site, in build/docs, and llms.txt beside it; a warning is an error
docs: install
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --fresh-env --quiet docs build/docs
	@echo "open build/docs/index.html"

reference: install
	$(BIN)/lifelong reproduce

# four processor-hours; what is there is not run again, and `--long` puts every method on MNIST, too
methods: install
	$(BIN)/python benchmarks/methods.py

families: install
	$(BIN)/python benchmarks/families.py

multitask: install
	$(BIN)/python benchmarks/multitask.py

transfer: install
	$(BIN)/python benchmarks/transfer.py

bench: install
	$(BIN)/pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/meta_speed.py
	$(BIN)/python benchmarks/online.py
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/old_and_new.py $(OLD) --output docs/speed.json

# on a machine with a GPU; installs nothing, so that it runs where nothing can be downloaded
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

clean:
	rm -rf .venv runs report-*.html build docs/catalogue
