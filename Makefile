# `make run` shows what thresh does, `make test` is everything that CI checks. Both build the same dev profile.

.PHONY: run test lint fuzz schemas install clean

run:
	cargo run -- run pipelines/quickstart.yaml

test: lint
	cargo test

lint:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

# A million pipelines changed at random, none of which may make it panic; `fuzz/` holds the same for cargo-fuzz.
fuzz:
	THRESH_MUTATIONS=1000000 cargo test --test it mutations

# Writes schemas/ anew from the code; a test fails when they are not current.
schemas:
	cargo run --quiet -- schema --out schemas

install:
	cargo install --path . --locked

clean:
	cargo clean
	rm -rf .thresh
