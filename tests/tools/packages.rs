//! What the published packages say of themselves, and what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that a release publishes, with the folder of each.
const PUBLISHED: [(&str, &str); 5] = [
    ("ringwal", ""),
    ("ringwal-archive", "archive"),
    ("ringwal-capi", "capi"),
    ("ringwal-cli", "cli"),
    ("loadgen", "loadgen"),
];

/// The least versions of direct dependencies, with the reason. A program that resolves to an older
/// one gets a crate that has an advisory, or one that does not compile here.
const LEAST: [(&str, &str, &str); 7] = [
    ("bytes", "1.11.1", "an overflow in BytesMut::reserve"),
    ("crossbeam-utils", "0.8.7", "an unsound AtomicCell"),
    ("metrics", "0.24.1", "0.24.0 does not compile"),
    ("object_store", "0.14.1", "a quick-xml that hostile answers exhaust"),
    ("tokio", "1.44.2", "an unsound broadcast channel"),
    ("tracing", "0.1.40", "a use after free in Instrumented"),
    ("url", "2.5.4", "an idna that takes different names for one"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of the workspace as cargo reads them. None for the published package, which is
/// alone.
fn packages() -> Option<Vec<Value>> {
    if !root().join("loadgen/Cargo.toml").exists() {
        return None;
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(all["packages"].as_array().unwrap().clone())
}

fn named<'a>(packages: &'a [Value], name: &str) -> &'a Value {
    packages.iter().find(|package| package["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{:?}: {e}", path.as_ref()))
}

#[test]
fn published_packages_are_those_of_the_list() {
    let Some(packages) = packages() else { return };
    // A package that is not published has an empty list of registries.
    let found: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package["publish"].is_null())
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(found, PUBLISHED.iter().map(|(name, _)| *name).collect());
}

#[test]
fn published_packages_describe_themselves() {
    let Some(packages) = packages() else { return };
    for (name, folder) in PUBLISHED {
        let package = named(&packages, name);
        let word = |key: &str| package[key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
        assert_eq!(word("license"), "MIT OR Apache-2.0", "{name}");
        assert_eq!(word("rust_version"), "1.89", "{name}");
        assert!((20..=200).contains(&word("description").len()), "{name}: description");
        assert!(root().join(folder).join(word("readme")).is_file(), "{name}: readme");
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert_eq!(text(licence), text(Path::new(folder).join(licence)), "{name}");
        }
        let keywords = strings(&package["keywords"]);
        // A registry takes no more, and no longer ones.
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        for keyword in keywords {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(keyword.len() <= 20 && keyword.chars().all(plain), "{name}: {keyword}");
        }
        assert!((1..=5).contains(&strings(&package["categories"]).len()), "{name}: categories");
        let address = package["repository"].as_str().unwrap_or("https://");
        assert!(address.starts_with("https://") && !address.contains("example"), "{name}");
    }
}

/// Dependencies on other packages of the workspace name the version that is released with them.
#[test]
fn dependencies_between_the_packages_name_their_version() {
    let Some(packages) = packages() else { return };
    let version = named(&packages, "ringwal")["version"].as_str().unwrap();
    let mut checked = 0;
    for (name, _) in PUBLISHED {
        let package = named(&packages, name);
        assert_eq!(package["version"], version, "{name}");
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["path"].is_null() || dependency["kind"] == "dev" {
                continue;
            }
            assert_eq!(dependency["req"], format!("^{version}"), "{name}: {}", dependency["name"]);
            checked += 1;
        }
    }
    assert!(checked >= 5);
    assert!(text("raft/Cargo.toml").contains(&format!("path = \"..\", version = \"{version}\"")));
    for other in ["raft/Cargo.toml", "python/Cargo.toml"] {
        assert!(text(other).contains(&format!("\nversion = \"{version}\"\n")), "{other}");
    }
}

/// A requirement without its last numbers permits versions that no test builds.
#[test]
fn lower_bounds_are_whole_and_have_no_known_advisory() {
    let Some(packages) = packages() else { return };
    let numbers = |version: &str| -> Vec<u64> {
        version.trim_start_matches(['^', '=']).split('.').map(|n| n.parse().unwrap()).collect()
    };
    let mut wrong = Vec::new();
    for (name, _) in PUBLISHED {
        for dependency in named(&packages, name)["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if !dependency["path"].is_null() {
                continue;
            }
            let bound = numbers(dependency["req"].as_str().unwrap());
            if bound.len() < 3 {
                wrong.push(format!("{name}: {on} {}: not three numbers", dependency["req"]));
            }
            for (_, least, why) in LEAST.iter().filter(|(name, ..)| *name == on) {
                if bound < numbers(least) {
                    wrong.push(format!("{name}: {on} below {least}: {why}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn table_of_features_is_that_of_the_manifest() {
    let Some(packages) = packages() else { return };
    let library = named(&packages, "ringwal");
    let features = library["features"].as_object().unwrap();
    let is_default = |name: &str| strings(&features["default"]).contains(&name);
    let mut expected: Vec<(String, bool)> = features
        .keys()
        .filter(|name| *name != "default")
        .map(|name| (name.clone(), is_default(name)))
        .collect();
    let lib = text("src/lib.rs");
    let rows = lib.lines().skip_while(|line| *line != "//! | feature | default | adds |").skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("//! | `"));
    let mut found: Vec<(String, bool)> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            (name.to_owned(), rest.starts_with("yes | "))
        })
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

/// The published documentation has every feature that adds public items: each but the backend that
/// only measurements use. `serde` comes with `json`.
#[test]
fn published_documentation_has_every_feature() {
    let Some(packages) = packages() else { return };
    let library = named(&packages, "ringwal");
    let docs = &library["metadata"]["docs"]["rs"];
    let mut found = strings(&docs["features"]);
    found.extend(["serde", "uring", "default", "discard"]);
    found.sort_unstable();
    let mut all: Vec<&str> =
        library["features"].as_object().unwrap().keys().map(String::as_str).collect();
    all.sort_unstable();
    assert_eq!(found, all);
    assert!(strings(&docs["targets"]).contains(&docs["default-target"].as_str().unwrap()));
}

/// The files that `cargo package` takes.
fn files_of(package: &str) -> Vec<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--offline", "--allow-dirty", "-p", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

#[test]
fn packages_have_what_builds_them_and_no_tests() {
    if packages().is_none() {
        return;
    }
    for (name, folder) in PUBLISHED {
        let files = files_of(name);
        let has = |path: &str| files.iter().any(|file| file == Path::new(path));
        for needed in ["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(has(needed), "{name} has no {needed}");
        }
        let unneeded: Vec<_> = files
            .iter()
            .filter(|file| {
                ["tests", "benches", "python", "fuzz", ".ci", "target"]
                    .iter()
                    .any(|part| file.starts_with(part))
            })
            .collect();
        assert!(unneeded.is_empty(), "{name}: {unneeded:?}");
        // A source that is left out would be missed only where the package is installed.
        let mut sources = Vec::new();
        below(&root().join(folder).join("src"), &mut sources);
        for source in sources {
            let path = source.strip_prefix(root().join(folder)).unwrap();
            assert!(files.iter().any(|file| file == path), "{name} has no {}", path.display());
        }
    }
    for needed in ["build.rs", "docs/guide.md", "examples/key_value.rs"] {
        assert!(files_of("ringwal").iter().any(|file| file == Path::new(needed)), "{needed}");
    }
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

/// The profile of the commands that users get. With `abort`, a panic in the I/O thread, a hook or a
/// callback would end the process instead of failing the log.
#[test]
fn distributed_commands_unwind_and_are_small() {
    let Some(_) = packages() else { return };
    let manifest = text("Cargo.toml");
    let profile = manifest.split("\n[profile.dist]\n").nth(1).expect("the profile dist");
    let profile = profile.split("\n[").next().unwrap();
    let lines = ["panic = \"unwind\"", "lto = \"fat\"", "strip = true", "codegen-units = 1"];
    for line in lines.into_iter().chain(["opt-level = \"z\""]) {
        assert!(profile.lines().any(|found| found == line), "{line} in\n{profile}");
    }
    // What runs for each record is not made as small as the rest. Cargo strips what is overridden
    // only if that is said again.
    let exceptions = manifest.split("\n[profile.dist.package]\n").nth(1).expect("its exceptions");
    let exceptions = exceptions.split("\n[").next().unwrap();
    for line in [
        "ringwal = { opt-level = \"s\" }",
        "loadgen = { opt-level = \"s\", strip = true }",
        "crc32fast = { opt-level = 3 }",
        "crossbeam-utils = { opt-level = 3 }",
        "io-uring = { opt-level = 3 }",
    ] {
        assert!(exceptions.lines().any(|found| found == line), "{line} in\n{exceptions}");
    }
    assert!(!exceptions.contains("ringwal-cli"), "overridden, it would not be stripped");
    // Names outside ASCII are for the caller to encode: their tables are larger than the archive.
    // `cargo update -p idna_adapter --precise 1.0.0` selects that.
    assert!(!text("Cargo.lock").contains("name = \"icu_"), "tables of Unicode in the lock file");
    assert_eq!(manifest.matches("panic = ").count(), 1, "a profile with another way to panic");
}

/// What `.ci/policy` says of a lock file with these versions of one package, by a database of one
/// advisory.
fn policy_of(versions: &[&str], source: &str) -> Option<Result<(), String>> {
    let readable = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !readable.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let name = format!("ringwal-policy-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\npackage = \"ring\"\n\
        [versions]\npatched = [\"^1.2.10\", \">= 1.4.0\"]\nunaffected = [\"< 1.1.0\"]\n```\n\n# Turns\n";
    fs::create_dir_all(dir.join("crates/ring")).unwrap();
    fs::write(dir.join("crates/ring/RUSTSEC-2000-0001.md"), advisory).unwrap();
    let package = |version| {
        format!("[[package]]\nname = \"ring\"\nversion = \"{version}\"\nsource = \"{source}\"\n")
    };
    fs::write(dir.join("Cargo.lock"), versions.iter().map(package).collect::<String>()).unwrap();
    let output = Command::new(root().join(".ci/policy"))
        .arg("--advisories")
        .args([&dir, &dir])
        .current_dir(root())
        .output()
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

#[test]
fn policy_reports_advisories_and_sources_that_the_rules_forbid() {
    if packages().is_none() {
        return;
    }
    let registry = "registry+https://example.com/index";
    // A compatible version of 1.2.10 is any later one before 2.0.0.
    let safe = ["1.0.9", "1.2.10", "1.3.0", "1.4.0-rc.1", "1.10.0", "2.0.0"];
    let Some(found) = policy_of(&safe, registry) else { return };
    assert_eq!(found, Ok(()));
    let affected = ["1.1.0", "1.2.9", "1.2.10-rc.1"];
    let found = policy_of(&affected, registry).unwrap().unwrap_err();
    for version in affected {
        assert!(found.contains(&format!("ring {version}: RUSTSEC-2000-0001: Turns")), "{found}");
    }
    let found = policy_of(&["1.4.0"], "git+https://example.com/ring").unwrap().unwrap_err();
    assert!(found.contains("ring 1.4.0 is from git+https"), "{found}");
}

/// A part of the Python package that two machines build would differ, and one that none builds
/// would be missed after the crates are published.
#[test]
fn release_builds_each_part_of_the_python_package_once() {
    if packages().is_none() {
        return;
    }
    let workflow = text(".github/workflows/release.yml");
    let lists = workflow.lines().filter_map(|line| line.trim().strip_prefix("wheels: "));
    let mut built: Vec<&str> = lists.flat_map(str::split_whitespace).collect();
    built.sort_unstable();
    let row = text(".ci/wheels");
    let all = row.split_once("${WHEELS:-").expect("the default").1.split_once('}').unwrap().0;
    let mut all: Vec<&str> = all.split_whitespace().collect();
    all.sort_unstable();
    assert_eq!(built, all);
    // What `publish` counts.
    assert!(text(".ci/packages").contains(&format!("${{#python[@]}} = {} ]", all.len())));
    assert!(workflow.contains("needs: [build, windows]"), "published before Windows has run it");
}

#[test]
fn python_package_has_licences_and_its_own_description() {
    if packages().is_none() {
        return;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert_eq!(text(licence), text(Path::new("python").join(licence)));
    }
    // In the source distribution pyproject.toml stands beside the library's README.
    let project = text("python/pyproject.toml");
    assert!(!project.lines().any(|line| line.starts_with("readme")));
    assert!(project.contains("dynamic = [\"version\", \"readme\"]"));
    assert!(text("python/Cargo.toml").contains("\nreadme = \"README.md\"\n"));
}
