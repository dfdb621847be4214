# The gate: what a change must pass.
gate:
    bash .ci/run

# The long forms of the tests, which take hours.
long seeds="1000000":
    RINGWAL_LONG=1 cargo test --release --workspace
    RINGWAL_SIM_SEEDS={{ seeds }} cargo test --release --lib simulation

loom:
    RUSTFLAGS="--cfg ringwal_loom" CARGO_TARGET_DIR=target/loom cargo test -p ringwal --lib --release loom

# The library on the other systems, and where a pointer has 32 bits: every row, or the rows named.
platforms *rows:
    bash .ci/platforms {{rows}}

# What users install, built, installed and run: every row, or the rows named.
packages *rows:
    bash .ci/packages {{rows}}

# The same models, and longer ones, under random schedules.
shuttle schedules="100000":
    RINGWAL_SCHEDULES={{ schedules }} RUSTFLAGS="--cfg ringwal_loom --cfg ringwal_shuttle" CARGO_TARGET_DIR=target/shuttle cargo test -p ringwal --lib --release loom

# ThreadSanitizer over the tests with threads. Needs the component rust-src.
tsan:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread" CARGO_TARGET_DIR=target/tsan cargo test -Zbuild-std --release --target {{ arch() }}-unknown-linux-gnu -p ringwal --lib
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread" CARGO_TARGET_DIR=target/tsan cargo test -Zbuild-std --release --target {{ arch() }}-unknown-linux-gnu -p ringwal --test api --test readers -- waking modes following

# A crash laboratory: a real filesystem on a traced block device. Needs root and FUSE.
lab fs="ext4" seconds="60":
    cargo run --release -p crashlab -- images --fs {{ fs }} --seconds {{ seconds }}
    cargo run --release -p crashlab -- faults --fs {{ fs }} --seconds {{ seconds }}
    cargo run --release -p crashlab -- stopped --fs {{ fs }} --seconds {{ seconds }}

# Breaks one promise after another, and shows which test fails.
mutations:
    tests/mutations/run

bench:
    cargo run --release -p loadgen

# W1 to W9 beside their limits: ten minutes.
suite:
    cargo run --release -p loadgen -- bench

# Other logs on the same disk. Builds and runs for some minutes each.
peers:
    cargo run --release --manifest-path benches/peers/Cargo.toml

instructions:
    benches/gate

# Every fuzz target, so many seconds each.
fuzz seconds="60":
    SECONDS_EACH={{ seconds }} fuzz/run
