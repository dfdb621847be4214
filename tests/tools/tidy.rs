//! House rules that a machine can check: imports go one way, as the code map of ARCHITECTURE.md
//! lists the modules, and files stay small.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file at most, with the tests in it.
const LONGEST: usize = 650;

/// Places that do not keep a rule yet: a file or folder, and the rule. The list may only shrink: an
/// entry that is no longer needed fails the rule's test.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("src/inspect", "cycle"),
    ("src/inspect/files.rs", "function"),
    ("src/inspect/walk.rs", "function"),
];

/// A place that does not keep a rule.
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

/// Fails for each violation without an exception, and for each exception without a violation.
pub(crate) fn check(rule: &str, found: Vec<Violation>) {
    let under = |path: &str, place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let excepted: Vec<&str> =
        EXCEPTIONS.iter().filter(|(_, named)| *named == rule).map(|(place, _)| *place).collect();
    let (known, wrong): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|one| excepted.iter().any(|place| under(&one.path, place)));
    let mut wrong: Vec<String> =
        wrong.iter().map(|one| format!("{} ({}): {}", one.path, one.rule, one.what)).collect();
    // The published package has only some of the folders.
    let needless = |place: &&&str| {
        root().join(place).exists() && !known.iter().any(|one| under(&one.path, place))
    };
    let needless = excepted.iter().filter(needless);
    wrong.extend(
        needless.map(|place| format!("the exception of {place} from {rule} is not needed")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lists the sources in these folders, or these files: the path from the root, and the full path.
pub(crate) fn files_of(places: &[&str]) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for place in places {
        let path = root().join(place);
        if path.is_file() { files.push(path) } else { sources(&path, &mut files) }
    }
    let relative = |file: &Path| file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    files.into_iter().map(|file| (relative(&file), file)).collect()
}

/// The comments of a text, one passage for each block.
pub(crate) fn comments(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = String::new();
    for line in text.lines().chain([""]) {
        match line.trim_start().strip_prefix("//") {
            Some(words) => block = block + words.trim_start_matches(['/', '!']) + "\n",
            None if !block.is_empty() => found.push(std::mem::take(&mut block)),
            None => {}
        }
    }
    found
}

/// A text without the module of tests at its end.
pub(crate) fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |pair: &[&str]| {
        pair[0].starts_with("#[cfg(")
            && pair[0].contains("test")
            && pair[1].starts_with("mod ")
            && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules of the code map, each with its row. A module may import from its own row and the
/// rows above.
fn code_map() -> HashMap<String, usize> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| place | what it is |").skip(2);
    let mut map = HashMap::new();
    for (place, row) in rows.take_while(|row| row.starts_with('|')).enumerate() {
        let names = row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        for name in names {
            let name = name.trim_end_matches('/').trim_end_matches(".rs");
            assert!(map.insert(name.to_owned(), place).is_none(), "{name} stands there twice");
        }
    }
    assert!(map.len() > 15, "the code map was not found");
    map
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    // The published package has only some of the folders.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.ends_with("target") {
            // Skip the files of a build.
        } else if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The module of a file: the name of its folder, or of the file.
fn module(file: &Path, crate_dir: &str) -> String {
    let inside = file.strip_prefix(root().join(crate_dir)).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Tests may import anything: those in files of their own, and those at the end of others.
pub(crate) fn is_test(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests")
}

/// The modules that the code imports, outside comments and tests.
fn imports(text: &str) -> Vec<String> {
    let is_tests =
        |line: &&str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let inline = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if is_tests(&line) && lines.peek().is_some_and(inline) {
            break;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with('$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
    }
    found
}

/// Imports of a crate's files that do not go to a module of the same or a higher row.
fn wrong_imports(crate_dir: &str, map: &HashMap<String, usize>) -> Vec<String> {
    let mut files = Vec::new();
    sources(&root().join(crate_dir), &mut files);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !is_test(file)) {
        let module = module(file, crate_dir);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(place) = map.get(&module) else {
            wrong.push(format!("{module} is not in the table of modules"));
            continue;
        };
        for import in imports(&fs::read_to_string(file).unwrap()) {
            if map.get(&import).is_none_or(|row| row > place) {
                wrong.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    let modules: Vec<String> = files.iter().map(|file| module(file, crate_dir)).collect();
    let gone = map.keys().filter(|name| !modules.contains(name));
    wrong.extend(gone.map(|name| format!("{name} is in the table of modules, not in {crate_dir}")));
    wrong
}

#[test]
fn imports_follow_the_code_map() {
    let wrong = wrong_imports("src", &code_map());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_of_loadgen_follow_the_table_in_its_documentation() {
    // The published package does not have it.
    let Ok(text) = fs::read_to_string(root().join("loadgen/src/lib.rs")) else { return };
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let names = rows.map(|row| row.split('`').next().unwrap().to_owned());
    let map: HashMap<String, usize> = names.enumerate().map(|(row, name)| (name, row)).collect();
    assert!(map.len() > 10, "the table was not found");
    let wrong = wrong_imports("loadgen/src", &map);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_have_at_most_650_lines() {
    let mut files = Vec::new();
    for folder in [
        "src",
        "archive",
        "capi",
        "python/src",
        "loadgen/src",
        "cli/src",
        "crashlab/src",
        "raft",
        "benches",
        "examples",
        "tests",
    ] {
        sources(&root().join(folder), &mut files);
    }
    let long = |file: &PathBuf| {
        let lines = fs::read_to_string(file).unwrap().lines().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines", file.display()))
    };
    let long: Vec<String> = files.iter().filter_map(long).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The Markdown documents: the path from the root, and the text.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in [
        "",
        "archive",
        "capi",
        "cli",
        "loadgen",
        "python",
        "docs",
        "docs/design",
        "crashlab",
        "fuzz",
        "raft",
    ] {
        // The published package has only some of the folders.
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "md") {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((relative, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// The words in backticks of a text. Text between fences is left out.
fn code_words(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn paths_in_documents_exist() {
    assert_eq!(code_words("a `b` c\n```\nd `e`\n```\n`f/g`"), ["b", "f/g"]);
    let folders = [
        "src", "archive", "capi", "python", "cli", "loadgen", "crashlab", "tests", "docs",
        "benches", "examples",
    ];
    let is_path = |word: &&str| {
        word.split_once('/').is_some_and(|(first, _)| folders.contains(&first))
            && word.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c))
    };
    let (mut checked, mut wrong) = (0, Vec::new());
    for (document, text) in documents() {
        for path in code_words(&text).into_iter().filter(is_path) {
            // The published package has only some of the folders.
            let folder = path.split('/').next().unwrap();
            if root().join(folder).exists() {
                checked += 1;
                if !root().join(path).exists() {
                    wrong.push(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(checked > 50, "the paths were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The four walks of CONTRIBUTING.md: each file has the names that stand beside it.
#[test]
fn files_in_the_walks_of_contributing_have_the_names_beside_them() {
    let Ok(text) = fs::read_to_string(root().join("CONTRIBUTING.md")) else { return };
    let section = text.split("## Where to find it").nth(1).unwrap().split("\n## ").next().unwrap();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut path, mut names, mut checked) = ("", Vec::new(), 0);
    for word in code_words(section) {
        if word.contains('/') {
            path = word;
            let file = fs::read_to_string(root().join(path));
            let file = file.unwrap_or_else(|e| panic!("{path}: {e}"));
            names = file.split(|c| !is_part(c)).map(str::to_owned).collect::<Vec<_>>();
        } else if word.chars().all(is_part) {
            assert!(names.iter().any(|name| name == word), "{path} does not have {word}");
            checked += 1;
        }
    }
    assert!(checked > 20, "the walks were not found");
}

/// The text that each hunk of a patch expects, with its file.
fn pieces_before(patch: &str) -> Vec<(&str, String)> {
    let mut pieces: Vec<(&str, String)> = Vec::new();
    let mut file = "";
    for line in patch.lines() {
        match line.split_at_checked(1) {
            _ if line.starts_with("--- a/") => file = &line[6..],
            _ if line.starts_with("+++ ") => {}
            Some(("@", _)) => pieces.push((file, String::new())),
            Some((" " | "-", kept)) => {
                if let Some((_, piece)) = pieces.last_mut() {
                    *piece += kept;
                    piece.push('\n');
                }
            }
            _ => {}
        }
    }
    pieces
}

/// A mutation that no longer applies tests nothing.
#[test]
fn mutations_apply_to_the_code() {
    let Ok(entries) = fs::read_dir(root().join("tests/mutations")) else { return };
    let mut wrong = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "patch") {
            continue;
        }
        let patch = fs::read_to_string(&path).unwrap();
        let pieces = pieces_before(&patch);
        let there = |(file, piece): &(&str, String)| {
            fs::read_to_string(root().join(file)).is_ok_and(|text| text.contains(piece.as_str()))
        };
        if pieces.is_empty() || !pieces.iter().all(there) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The accesses of the table in src/sys/sync.rs: file, word, accesses.
fn stated_orderings() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join("src/sys/sync.rs")).unwrap();
    let rows =
        text.lines().skip_while(|line| *line != "//! | file | word | accesses | why |").skip(2);
    rows.map_while(|row| row.strip_prefix("//! |"))
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().to_owned());
            let mut next = || cells.next().unwrap();
            (next(), next(), next())
        })
        .collect()
}

/// The atomic accesses of a source text: the word, the operation and its orderings.
fn orderings_in(text: &str) -> Vec<(String, String)> {
    const DONE: [&str; 8] = [
        "load(",
        "store(",
        "swap(",
        "fetch_add(",
        "fetch_sub(",
        "fetch_max(",
        "compare_exchange(",
        "fence(",
    ];
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for done in DONE {
        for (at, _) in text.match_indices(done) {
            let before = text[..at].trim_end();
            let Some(before) = before.strip_suffix('.').or(before.strip_suffix("::")) else {
                continue;
            };
            let before = before.trim_end().trim_end_matches("()");
            let word = before.rsplit(|c| !is_name(c)).next().unwrap();
            let mut open = 1;
            let arguments: String = text[at + done.len()..]
                .chars()
                .take_while(|c| {
                    open += i32::from(*c == '(') - i32::from(*c == ')');
                    open > 0
                })
                .collect();
            let orderings: Vec<&str> = arguments
                .split("Ordering::")
                .skip(1)
                .map(|rest| rest.split(|c| !is_name(c)).next().unwrap())
                .collect();
            // A call without an ordering is a method of another type, whose file has the access.
            if !orderings.is_empty() {
                let access = format!("{} {}", done.trim_end_matches('('), orderings.join(" "));
                found.push((word.to_owned(), access));
            }
        }
    }
    found
}

/// The models cannot see which orderings the lock-free parts need, because the models' fences hide
/// weaker ones.
#[test]
fn atomic_accesses_have_the_orderings_that_the_table_states() {
    let mut files = vec![root().join("src/sys/sync.rs")];
    sources(&root().join("src/ring"), &mut files);
    sources(&root().join("src/durable"), &mut files);
    sources(&root().join("src/engine/baton"), &mut files);
    let mut counted: HashMap<(String, String, String), usize> = HashMap::new();
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(file).unwrap();
        // An ordering under another name would be overlooked.
        for hidden in ["Ordering::*", "Ordering as ", "Ordering::{", ": Ordering"] {
            assert!(!text.contains(hidden), "{}: {hidden}", file.display());
        }
        let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        let code = code.split("#[cfg(all(test, not(ringwal_loom)))]mod tests {").next().unwrap();
        let name = file.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
        for (word, access) in orderings_in(code) {
            *counted.entry((name.clone(), word, access)).or_default() += 1;
        }
    }
    let mut found: HashMap<(String, String), Vec<String>> = HashMap::new();
    for ((file, word, access), count) in counted {
        let times = if count > 1 { format!("{count} ") } else { String::new() };
        found.entry((file, word)).or_default().push(format!("{times}{access}"));
    }
    let mut stated = stated_orderings();
    assert!(stated.len() > 20, "the table was not found");
    let mut wrong = Vec::new();
    for (file, word, accesses) in stated.drain(..) {
        let mut expected: Vec<&str> = accesses.split(", ").collect();
        let mut has = found.remove(&(file.clone(), word.clone())).unwrap_or_default();
        expected.sort_unstable();
        has.sort_unstable();
        if expected != has {
            wrong.push(format!(
                "{file}, {word}: {} stand in the table, {} in the code",
                expected.join(", "),
                has.join(", ")
            ));
        }
    }
    wrong.extend(found.into_iter().map(|row| format!("not in the table: {row:?}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
