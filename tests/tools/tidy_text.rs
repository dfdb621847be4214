//! House rules for words: the width of comments, and banned phrases.

use std::fs;

use crate::tidy::{Violation, check, comments, files_of};

/// Characters of a line with a comment at most.
const WIDTH: usize = 100;

/// Banned phrases: each hides its subject, or stands for a term of the field.
const BANNED: [&str; 28] = [
    "tell of",
    "tells of",
    "told of",
    "let go",
    "lets go",
    "lets go of",
    "whoever",
    "whomever",
    "somebody",
    "nobody",
    "anybody",
    "anew",
    "heed",
    "heeds",
    "mend",
    "mends",
    "mended",
    "behind it",
    "behind them",
    "of its own accord",
    "come what may",
    "none the wiser",
    "goes round",
    "keeps up with it",
    "made good",
    "gone by",
    "has done with",
    "have done with",
];

/// The lines of comments that are too wide, except rows of tables, which cannot be wrapped.
fn wide_lines(text: &str) -> Vec<String> {
    let is_comment = |line: &&str| line.trim_start().starts_with("//") && !line.contains("// |");
    let is_row =
        |line: &&str| line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
    let wide = text.lines().filter(is_comment).filter(|line| !is_row(line));
    wide.filter(|line| line.chars().count() > WIDTH).map(|line| line.trim().to_owned()).collect()
}

/// The banned phrases in comments, also across line ends, and in texts of errors.
fn banned_phrases(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let errors = text.split("#[error(").skip(1).filter_map(|rest| rest.split(")]").next());
    for passage in comments(text).into_iter().chain(errors.map(str::to_owned)) {
        let words: Vec<String> = passage
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let words = format!(" {} ", words.join(" "));
        let here = BANNED.into_iter().filter(|phrase| words.contains(&format!(" {phrase} ")));
        found.extend(here.map(str::to_owned));
    }
    found
}

fn each_file(rule: &'static str, find: impl Fn(&str) -> Vec<String>) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (path, file) in files_of(&[
        "src",
        "archive",
        "capi",
        "python/src",
        "cli",
        "loadgen",
        "crashlab",
        "raft",
        "tests",
        "benches",
        "examples",
        "build.rs",
    ]) {
        // This file lists the phrases.
        if path == "tests/tools/tidy_text.rs" {
            continue;
        }
        let found = find(&fs::read_to_string(file).unwrap());
        wrong.extend(found.into_iter().map(|what| Violation { path: path.clone(), rule, what }));
    }
    wrong
}

#[test]
fn comments_wrap_at_100_characters() {
    let long = format!("//{}\n/// | {} |\n", "x".repeat(99), "x".repeat(99));
    assert_eq!(wide_lines(&long).len(), 1);
    check("width", each_file("width", wide_lines));
}

#[test]
fn comments_and_errors_have_no_banned_phrase() {
    let bad = "/// The lock is let\n/// go of.\nfn f() {}\n#[error(\"mend it\")]\nlet go = 1;";
    assert_eq!(banned_phrases(bad), ["let go", "mend"]);
    check("phrase", each_file("phrase", banned_phrases));
}
