//! House rules for structure: short functions, one type of a name, and imports that go one way
//! among the files of a folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use crate::tidy::{Violation, check, files_of, is_test, without_tests};

/// Lines of a function at most, with its signature and its braces.
const LONGEST_FUNCTION: usize = 70;

/// The functions that are too long, with their number of lines.
fn long_functions(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some((before, rest)) = code.split_once("fn ") else { continue };
        let qualifiers = ["pub", "const", "async", "unsafe", "extern", "(", "\"C\""];
        if !before.split_whitespace().all(|word| qualifiers.iter().any(|q| word.starts_with(q))) {
            continue;
        }
        let closes =
            |line: &&str| **line == format!("{indent}}}") || **line == format!("{indent};");
        let one_line = code.ends_with(';') || code.ends_with('}');
        let length = lines[at..].iter().position(closes).map_or(1, |n| n + 1);
        if !one_line && length > LONGEST_FUNCTION {
            let name = rest.split(['(', '<']).next().unwrap_or(rest);
            found.push(format!("{name}: {length} lines"));
        }
    }
    found
}

/// The types that a file defines for others: public, or for the crate.
fn types(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("pub")) {
        let mut words = line.split_whitespace().skip_while(|word| {
            word.starts_with("pub") || word.ends_with(')') || ["unsafe", "in"].contains(word)
        });
        if let Some("struct" | "enum" | "trait" | "union" | "type") = words.next()
            && let Some(name) = words.next()
        {
            let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
            found.push(name[..end].to_owned());
        }
    }
    found
}

/// Every path in a text from `crate`, `super` or `self` on, with groups in braces expanded.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n");
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !['_', ':', '$'].contains(&before) {
                spread(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a group of paths, at the start of the text. Returns the number of bytes read.
fn spread(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].is_empty() && !text[at..].starts_with('}') {
                let skipped =
                    text[at..].len() - text[at..].trim_start_matches([',', ' ', '\n']).len();
                let read = skipped + spread(&text[at + skipped..], prefix, found);
                if read == 0 {
                    break;
                }
                at += read;
            }
            at += 1;
            break;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        prefix.push(rest[..end].to_owned());
        at += end;
        if text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        found.push(prefix.clone());
        if let Some(alias) = text[at..].strip_prefix(" as ") {
            at += 4 + alias.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(alias.len());
        }
        break;
    }
    prefix.truncate(depth);
    at.min(text.len())
}

/// The path of a file's module from the crate's root.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// Resolves a path in a module to an absolute one.
fn resolve(module: &[String], path: &[String]) -> Vec<String> {
    let mut from: Vec<String> = module.to_vec();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => from.clear(),
            "super" => drop(from.pop()),
            "self" => {}
            _ => break,
        }
        rest = after;
    }
    from.extend_from_slice(rest);
    from
}

/// For each folder: which of its files and folders imports which other.
fn imports_in_folders(
    sources: &[(String, String)],
) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let modules: BTreeSet<Vec<String>> =
        sources.iter().map(|(path, _)| module_path(path)).collect();
    // Items that a folder's `mod.rs` re-exports: `pub use file::Item`.
    let mut exported: HashMap<Vec<String>, Vec<String>> = HashMap::new();
    for (path, text) in sources.iter().filter(|(path, _)| path.ends_with("/mod.rs")) {
        let module = module_path(path);
        for part in text.split("use ").skip(1) {
            let mut items = Vec::new();
            spread(part, &mut Vec::new(), &mut items);
            for item in items {
                let target = [&module[..], &item[..]].concat();
                let name = [&module[..], &item[item.len() - 1..]].concat();
                if item.len() > 1 && modules.contains(&target[..=module.len()]) {
                    exported.insert(name, target);
                }
            }
        }
    }
    let mut all: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (path, text) in sources {
        let module = module_path(path);
        for named in paths(text) {
            let mut target = resolve(&module, &named);
            let visible = (1..=target.len()).find_map(|n| exported.get(&target[..n]));
            if let Some(real) = visible {
                target.clone_from(real);
            }
            let shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if shared == 0 || shared >= module.len() || shared >= target.len() {
                continue;
            }
            if modules.contains(&target[..=shared]) {
                let folder = all.entry(module[..shared].join("/")).or_default();
                folder.entry(module[shared].clone()).or_default().insert(target[shared].clone());
            }
        }
    }
    all
}

/// The imports of a folder that lie on a cycle.
fn cycles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reaches = |from: &String, to: &String| {
        let mut seen = BTreeSet::from([from]);
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for import in imports.get(at).into_iter().flatten() {
                if import == to {
                    return true;
                }
                if seen.insert(import) {
                    next.push(import);
                }
            }
        }
        false
    };
    let each = imports.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    each.filter(|(from, to)| reaches(to, from))
        .map(|(from, to)| format!("{from} imports {to}"))
        .collect()
}

fn library() -> Vec<(String, String)> {
    let files = files_of(&["src"]).into_iter().filter(|(_, file)| !is_test(file));
    files.map(|(path, file)| (path, without_tests(&fs::read_to_string(file).unwrap()))).collect()
}

#[test]
fn functions_have_at_most_70_lines() {
    let long = format!("    pub(crate) fn long<T>() {{\n{}    }}\n", "        x();\n".repeat(69));
    assert_eq!(long_functions(&long), ["long: 71 lines"]);
    let mut wrong = Vec::new();
    for (path, file) in files_of(&[
        "src",
        "archive/src",
        "capi/src",
        "python/src",
        "cli/src",
        "loadgen/src",
        "crashlab/src",
        "raft",
    ]) {
        if is_test(&file) || path.starts_with("src/checks/") {
            continue;
        }
        let found = long_functions(&without_tests(&fs::read_to_string(file).unwrap()));
        wrong.extend(found.into_iter().map(|what| Violation {
            path: path.clone(),
            rule: "function",
            what,
        }));
    }
    check("function", wrong);
}

#[test]
fn type_names_are_defined_once_in_the_library() {
    assert_eq!(types("pub(in super::super) struct A {\npub type B<T> = T;\nstruct C;"), ["A", "B"]);
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in library().into_iter().filter(|(path, _)| !path.starts_with("src/checks/")) {
        types(&text)
            .into_iter()
            .for_each(|name| places.entry(name).or_default().push(path.clone()));
    }
    assert!(places.len() > 100, "the types were not found");
    let twice = places.into_iter().filter(|(_, paths)| {
        // Only one of these is compiled for a platform.
        paths.iter().filter(|path| !path.starts_with("src/io/fs/sys/")).count() > 1
    });
    let wrong = twice.flat_map(|(name, paths)| {
        let what = format!("{name} stands in {}", paths.join(", "));
        paths.into_iter().map(move |path| Violation { path, rule: "twice", what: what.clone() })
    });
    check("twice", wrong.collect());
}

#[test]
fn imports_among_the_files_of_a_folder_go_one_way() {
    let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sample = [
        source("src/f/mod.rs", "mod a;\nmod b;\npub(crate) use a::Item;"),
        source("src/f/a.rs", "use super::b::{Other, more};"),
        source("src/f/b.rs", "use crate::{f::{Item, c}, g};"),
        source("src/f/c.rs", ""),
    ];
    assert_eq!(cycles(&imports_in_folders(&sample)["f"]), ["a imports b", "b imports a"]);
    let mut wrong = Vec::new();
    for (folder, imports) in imports_in_folders(&library()) {
        let path = format!("src/{folder}");
        wrong.extend(cycles(&imports).into_iter().map(|what| Violation {
            path: path.clone(),
            rule: "cycle",
            what,
        }));
    }
    check("cycle", wrong);
}
