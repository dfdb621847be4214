//! Names the combinations of platform, feature and model checker that the sources distinguish:
//!
//! | name | when |
//! |---|---|
//! | `linux_calls` | the calls that only Linux has may be used: io_uring, `O_DIRECT`, futex |
//! | `linux_unmodelled` | the same, and no model checker replaces memory, threads and waiting |
//! | `ofd_locks` | the locks of open file descriptions (`F_OFD_SETLK`) may be used |
//! | `simulated` | the simulated disk is part of the library |

/// Architectures for which the crate io-uring has bindings. `Cargo.toml` has the same list.
const URING: [&str; 5] = ["x86_64", "aarch64", "riscv64", "loongarch64", "powerpc64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let bindings = target("OS") == "linux" && URING.contains(&target("ARCH").as_str());
    let linux_calls = is_set("CARGO_FEATURE_URING") && bindings;
    let modelled = is_set("CARGO_CFG_RINGWAL_LOOM");
    alias("linux_calls", linux_calls);
    let is_linux = matches!(target("OS").as_str(), "linux" | "android");
    // On sparc64 the structure of a lock has another field.
    let plain_lock = target("POINTER_WIDTH") == "64" && target("ARCH") != "sparc64";
    // By a call of the kernel: the C libraries of 32 bits differ in the structure they take.
    let wide_lock = target("OS") == "linux" && matches!(target("ARCH").as_str(), "x86" | "arm");
    alias("ofd_locks", linux_calls || is_linux && plain_lock || wide_lock);
    alias("linux_unmodelled", linux_calls && !modelled);
    // The unit tests get this feature through the package's dependency on itself.
    alias("simulated", is_set("CARGO_FEATURE_TESTING") && !modelled);
}

fn alias(name: &str, holds: bool) {
    println!("cargo::rustc-check-cfg=cfg({name})");
    if holds {
        println!("cargo::rustc-cfg={name}");
    }
}
