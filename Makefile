# One word for each thing that one does with Kindling. `make help` lists them.

RECIPE ?= smollm2-135m
TAG ?= latest
HOST ?= 127.0.0.1
PYTHON ?=
DOCKER ?= docker
DOCKER_OPTIONS ?=
ARGS ?=

RECIPE_FILE := $(wildcard model_export/recipes/$(RECIPE).toml $(RECIPE))
# A recipe that takes transformers 5 is exported, and served, by an environment of its own.
WITH_5 := $(if $(filter-out export serve lambda,$(or $(MAKECMDGOALS),help)),,$(shell grep -s '^transformers *= *5' $(RECIPE_FILE) /dev/null))
VENV := $(if $(WITH_5),.venv-transformers5,.venv)
EXPORTER := $(VENV)/$(if $(WITH_5),.transformers5,.export)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --disable-pip-version-check
# Each recipe has a directory of its own; the demo's is the runtime's default MODEL_DIR.
EXPORTED := $(if $(filter smollm2-135m,$(RECIPE)),build/model,build/models/$(patsubst %.toml,%,$(notdir $(RECIPE))))
# A MODEL_DIR of the user's own is served as it is: nothing is exported then.
SERVED := $(or $(MODEL_DIR),$(EXPORTED))
SETTINGS := $(if $(filter build/model,$(SERVED)),,MODEL_DIR=$(SERVED) )
MANIFEST := $(if $(MODEL_DIR),,$(EXPORTED)/manifest.json)
KERNELS := handlers/engine/kernels.so
SEARCH := model_export/quantize/search_affine.so

SERVE = $(SETTINGS)FUNCTION_TARGET=handler FUNCTION_SOURCE=handlers/cloud_run/function.py \
	HOST=$(HOST) PORT=$(PORT) $(RUN) -m handlers.cloud_run
LAMBDA = $(SETTINGS)build/aws-lambda-rie \
	--runtime-interface-emulator-address $(HOST):$(PORT) $(RUN) -m awslambdaric handlers.aws_lambda.handler

# The emulator is no part of the image: it lies beside it, and starts what the image would start.
LAMBDA_IMAGE = $(DOCKER) run --rm --read-only --tmpfs /tmp --cpus 1 --memory 1769m \
	--publish $(HOST):$(PORT):8080 --volume "$(CURDIR)/build/aws-lambda-rie:/aws-lambda-rie:ro" \
	--env AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769 --pull never \
	--entrypoint /aws-lambda-rie kindling-lambda:$(TAG) python -m awslambdaric handlers.aws_lambda.handler

# The tests and figures are the demo model's; the tests of embeddings bring theirs.
test test-needs test-api-fuzz coverage test-export5 bench: override RECIPE := smollm2-135m

.NOTPARALLEL:
.PHONY: help serve lambda test test-fast test-api-fuzz test-needs coverage check export kernels bench images lambda-image test-images test-export5 deploy-lambda deploy-cloudrun smoke lock clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

serve: PORT ?= 8080
serve: $(EXPORTER) $(KERNELS) $(MANIFEST) ## the Cloud Run handler on :8080; PORT, HOST, RECIPE or MODEL_DIR change it
	@echo '$(SERVE)'
	@$(RUN) scripts/first_question.py serve $(PORT) $(SERVED)/manifest.json
	@exec env $(SERVE)

lambda: PORT ?= 9000
lambda: $(EXPORTER) $(KERNELS) $(MANIFEST) build/aws-lambda-rie ## the Lambda handler behind AWS's emulator on :9000
	@echo '$(LAMBDA)'
	@$(RUN) scripts/first_question.py lambda $(PORT) $(SERVED)/manifest.json
	@exec env $(LAMBDA)

test: test-needs ## all tests but those of the images; ARGS='-k stream' chooses
	@$(RUN) -m scripts.run_tests $(ARGS)

test-fast: $(VENV)/.dev $(KERNELS) ## the tests without torch, processes or models: for every save
	@$(RUN) -m pytest --tier fast --numprocesses 2 $(ARGS)

test-api-fuzz: test-needs ## the API beside its OpenAPI document with many more requests; SEED=1 repeats a run
	@seed=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} && echo "SEED=$$seed" && \
		$(RUN) -m pytest tests/clouds/test_openapi.py --hypothesis-profile fuzz --hypothesis-seed $$seed $(ARGS)

test-needs: $(VENV)/.dev $(KERNELS) build/model/manifest.json build/aws-lambda-rie build/clients/.npm build/bench/.templates ## what the tests need, and no tests
	@$(MAKE) -s RECIPE=all-minilm-l6-v2 build/models/all-minilm-l6-v2/manifest.json

coverage: $(VENV)/.dev $(KERNELS) build/model/manifest.json ## which lines and branches of the API, grammar, text, engine and encoder their tests run, with a floor
	@$(MAKE) -s RECIPE=all-minilm-l6-v2 build/models/all-minilm-l6-v2/manifest.json
	@$(RUN) -m coverage run -m pytest $(or $(ARGS),tests/api tests/grammar tests/text tests/engine tests/encoder)
	@$(RUN) -m coverage report

check: $(VENV)/.dev ## ruff, ruff format, mypy --strict, and the tables of docs/ that the code decides
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(RUN) -m scripts.docs_tables --check

export: $(EXPORTER) $(KERNELS) ## export RECIPE (a shipped name or a TOML file) anew
	@$(RUN) -m model_export $(RECIPE) --out $(EXPORTED)

kernels: $(VENV)/.export ## compile the kernels, and the search of an export, for this machine
	@$(RUN) -m kernels

bench: $(VENV)/.bench $(KERNELS) build/model/manifest.json ## cold start, speed and memory beside llama.cpp's server and others; ARGS names peers
	@$(RUN) -m bench $(ARGS)

images: ## the two container images of RECIPE, tagged TAG; DOCKER_OPTIONS go to `docker build`
	@DOCKER=$(DOCKER) python3 scripts/images.py $(RECIPE) '$(TAG)' $(DOCKER_OPTIONS)

lambda-image: PORT ?= 9000
lambda-image: build/aws-lambda-rie ## the Lambda image TAG behind AWS's emulator on :9000
	@$(DOCKER) image inspect kindling-lambda:$(TAG) >/dev/null || { echo 'Build it first: make images TAG=$(TAG)'; exit 1; }
	@echo '$(LAMBDA_IMAGE)'
	@$(DOCKER) run --rm --network none --pull never --entrypoint cat kindling-lambda:$(TAG) model/manifest.json \
		| $(RUN) scripts/first_question.py lambda $(PORT) /dev/stdin
	@exec $(LAMBDA_IMAGE)

test-images: $(VENV)/.dev $(KERNELS) build/aws-lambda-rie ## the tests of the two images that `make images` built
	@DOCKER=$(DOCKER) DOCKER_OPTIONS="$(DOCKER_OPTIONS)" $(RUN) -m pytest tests/images $(ARGS)

test-export5: $(VENV)/.export $(KERNELS) build/model/manifest.json ## the tests of the export with transformers 5, in an environment of its own
	@$(MAKE) VENV=.venv-transformers5 .venv-transformers5/.transformers5
	@.venv-transformers5/bin/python -m pytest --numprocesses 2 --dist worksteal --transformers-major $(or $(ARGS),tests/export)

deploy-lambda: NAME ?= kindling
deploy-lambda: $(VENV)/.deploy ## push the Lambda image TAG and deploy it as NAME; ARGS='--set MemorySize=3008'
	@DOCKER=$(DOCKER) $(RUN) -m deploy.aws deploy $(NAME) --image kindling-lambda:$(TAG) $(ARGS)

deploy-cloudrun: ## build and deploy with Cloud Build, after deploy/cloudrun/setup; ARGS go to `gcloud builds submit`
	@gcloud builds submit --config deploy/cloudrun/cloudbuild.yaml $(ARGS)

smoke: $(VENV)/.deploy ## ask what runs at URL whether it works; ARGS='--auth aws' or '--auth google'
	@$(RUN) -m deploy.smoke $(or $(URL),$(error URL=https://... is missing)) $(ARGS)

lock: $(VENV)/.dev ## pin the dependencies of pyproject.toml in requirements/
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(RUN) scripts/lock.py $(ARGS)

clean: ## remove all that make made: .venv, build/ and the caches
	@rm -rf $(VENV) .venv-transformers5 build $(KERNELS) $(SEARCH) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the words above need. A stamp in .venv says which lock it holds, so a second run does nothing.

$(VENV)/.made: scripts/find_python
	@python="$$(scripts/find_python $(PYTHON))" && echo "[1/4] $(VENV), with $$python" && "$$python" -m venv $(VENV)
	@$(PIP) pip==26.3
	@touch $@

$(VENV)/.torch: $(VENV)/.made scripts/install_torch.py requirements/torch.txt
	@echo "[2/4] torch"
	@$(RUN) scripts/install_torch.py
	@touch $@

$(VENV)/.%: requirements/%.txt $(VENV)/.torch
	@echo "[3/4] the packages that $< pins"
	@$(PIP) --no-deps -r $<
	@touch $@

# No torch for what only deploys.
$(VENV)/.deploy: requirements/deploy.txt $(VENV)/.made
	@$(PIP) --no-deps -r $<
	@touch $@

# It makes $(SEARCH) too.
$(KERNELS): $(wildcard kernels/*) $(SEARCH:.so=.c) | $(VENV)/.torch
	@echo "the kernels: $@"
	@$(RUN) -m kernels

%/manifest.json: $(RECIPE_FILE) | $(VENV)/.torch $(KERNELS)
	@echo "[4/4] the model: $(RECIPE)"
	@$(RUN) -m model_export $(RECIPE) --out $(@D)

build/aws-lambda-rie: scripts/fetch_emulator.py | $(VENV)/.made
	@echo "AWS's Lambda emulator"
	@$(RUN) scripts/fetch_emulator.py
	@touch $@

# The chat templates of published models, under licences of their own: in llama.cpp's tree.
build/bench/.templates: bench/peers/llama_cpp.py | $(VENV)/.dev
	@echo "llama.cpp's sources, for their chat templates"
	@$(RUN) -c 'from bench.peers.llama_cpp import fetch; fetch()'
	@touch $@

# What the JavaScript on docs/clients.md imports.
build/clients/.npm: tests/clients/package.json tests/clients/package-lock.json | $(VENV)/.dev
	@echo "the packages that tests/clients/package-lock.json pins"
	@mkdir -p $(@D) && cp $^ $(@D)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@
