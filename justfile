# The gate: what a change must pass.
gate:
    bash .ci/run

# The long forms of the tests: hours if you let them.
long seeds="1000000":
    RINGWAL_LONG=1 cargo test --release --workspace
    RINGWAL_SIM_SEEDS={{ seeds }} cargo test --release --lib simulation

loom:
    RUSTFLAGS="--cfg ringwal_loom" CARGO_TARGET_DIR=target/loom cargo test -p ringwal --lib --release loom

bench:
    cargo run --release -p loadgen

# W1 to W9 beside their limits: ten minutes.
suite:
    cargo run --release -p loadgen -- bench

# Other logs on the same disk: builds for some minutes, runs for some more.
peers:
    cargo run --release --manifest-path benches/peers/Cargo.toml

instructions:
    benches/gate

# Every fuzz target, so many seconds each.
fuzz seconds="60":
    SECONDS_EACH={{ seconds }} fuzz/run
