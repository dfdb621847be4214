//! Arguments, messages, help and generated files.

use std::path::Path;

use crate::support::{Temp, contents, log, said};

#[test]
fn bad_arguments_are_refused_with_a_remedy() {
    let temp = Temp::new();
    let (none, dir) = (temp.file("none"), temp.log());
    log(&dir);
    let before = contents(&dir);
    for (arguments, status, part) in [
        (vec!["verify", &none], 3, "is it the right directory"),
        (vec!["truncate-before", &none, "5"], 3, "No such file"),
        (vec!["--prefix", "../x", "info", &dir], 2, "prefix"),
        (vec!["--prefix", "other", "verify", &dir], 3, "--prefix"),
        (vec!["dump", "--from", "9", "--to", "3", &dir], 2, "exchange them"),
        (vec!["dump", "--from", "minus", &dir], 2, "invalid value"),
        (vec!["dump", "--format", "xml", &dir], 2, "possible values"),
        (vec!["dump", "--from", "99999999999", "--follow", &dir], 3, "durable"),
        (vec!["import", "--format", "length-prefixed", &dir, &none], 3, "cannot open"),
        (vec!["dump", &dir, "--from", "-5"], 2, "'-5' for '--from': it must not be negative"),
        (vec!["tail", &dir, "-n", "-1k"], 2, "'-1k' for '-n'"),
        (vec!["truncate-before", &dir, "-64KiB"], 2, "'-64KiB': it must not be negative"),
        (vec!["import", &dir, "--application-version", "x"], 2, "is not a version"),
        (vec!["frobnicate"], 2, "unrecognized subcommand"),
        (vec![], 2, "Usage"),
    ] {
        let text = said(&arguments, status);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    assert!(contents(&dir) == before);
    assert!(!Path::new(&none).exists(), "nothing was made");
}

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = said(&["--help"], 0);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| *line != "Options:");
    let name = |line: &str| line.strip_prefix("  ").map(|rest| rest.trim_end().to_owned());
    let names = lines.filter_map(name).filter_map(|line| {
        let word = line.split(' ').next()?.to_owned();
        (!word.is_empty() && word != "help").then_some(word)
    });
    names.collect()
}

#[test]
fn help_completions_and_manual_pages_cover_every_command() {
    let commands = commands();
    for new in ["salvage", "backup", "consumers", "archive", "restore", "list", "import", "verify"]
    {
        assert!(commands.iter().any(|name| name == new), "{new}: {commands:?}");
    }
    let help = said(&["--help"], 0);
    assert!(help.contains("Exit status: 0 done") && help.contains("Examples:"));
    let temp = Temp::new();
    let pages = temp.file("man");
    said(&["man", &pages], 0);
    assert!(said(&["man"], 0).contains(".TH ringwal 1"));
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["completions", shell], 0);
        for name in &commands {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
        }
    }
    for name in &commands {
        let help = said(&[name, "--help"], 0);
        let examples = ["completions", "man"].contains(&name.as_str());
        assert!(examples || help.contains("Examples:"), "{name}");
        let page = format!("ringwal-{name}.1");
        let page = std::fs::read_to_string(Path::new(&pages).join(page)).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"), "{name}");
    }
}

/// Every option that takes a number, with every form of it.
#[test]
fn numbers_have_one_grammar_in_every_option() {
    let temp = Temp::new();
    let (dir, file) = (temp.log(), temp.file("in"));
    log(&dir);
    std::fs::write(&file, "{\"text\":\"a\"}\n").unwrap();
    let before = contents(&dir);
    for good in ["0", "1k", "4k", "4K", "64KiB", "1Ki", "16kb", "0m"] {
        for arguments in [
            vec!["dump", "--from", good, "--limit", good, &dir],
            vec!["dump", "--to", good, &dir],
            vec!["tail", "-n", good, &dir],
            vec!["truncate-before", "--dry-run", &dir, "64k"],
        ] {
            said(&arguments, 0);
        }
        let out = crate::support::ringwal(&["export", "--from", good, "--to", "2m", &dir]);
        assert_eq!(out.status.code(), Some(0), "{good}");
    }
    assert_eq!(said(&["dump", "--limit", "0k", &dir], 0), "");
    let from = |text| said(&["dump", "--from", text, &dir], 0);
    assert_eq!(from("64k"), from("65536"));
    // No gap between two records is as wide as that between the two positions.
    assert!(from("200k") != from("200000"), "200k is 204,800");
    for bad in ["abc", "", "1.5k", "4kk", "-1", "0x10", "1e3", "1 000", "99999999999g", "KiB"] {
        for (option, rest) in [
            ("--from", vec!["dump", &dir]),
            ("--to", vec!["dump", &dir]),
            ("--limit", vec!["dump", &dir]),
            ("--from", vec!["export", &dir]),
            ("--to", vec!["export", &dir]),
            ("--records", vec!["tail", &dir]),
            ("--skip", vec!["import", &dir, &file]),
            ("--application-version", vec!["import", &dir, &file]),
            ("--mode", vec!["import", &dir, &file]),
            ("--since", vec!["tail", &dir]),
            ("--until", vec!["export", &dir]),
        ] {
            let given = format!("{option}={bad}");
            let text = said(&[&rest[..], &[given.as_str()]].concat(), 2);
            assert!(text.contains(option) && text.contains("write "), "{given}: {text}");
            assert!(!text.contains("invalid digit"), "{text}");
        }
        let text = said(&["truncate-before", &dir, "--", bad], 2);
        assert!(text.contains("LSN") && text.contains("write "), "{text}");
    }
    assert!(contents(&dir) == before);
}

/// A message names an option of the command, and none of the library's.
#[test]
fn messages_name_the_options_of_the_command() {
    let temp = Temp::new();
    let (dir, file) = (temp.log(), temp.file("in"));
    log(&dir);
    std::fs::write(&file, "{\"text\":\"a\"}\n").unwrap();
    for (arguments, status, part) in [
        (vec!["--prefix", "a/b", "info", &dir], 2, "--prefix"),
        (vec!["--prefix", "", "info", &dir], 2, "--prefix"),
        (vec!["import", "--mode", "0100", &dir, &file], 2, "--mode"),
        (vec!["import", "--application-version", "9", &dir, &file], 3, "--application-version"),
        (vec!["dump", "--since", "1h", "--until", "2h", &dir], 2, "--until lies before --since"),
        (vec!["export", "--to", "1", "--from", "2", &dir], 2, "--to 1 lies before --from 2"),
        (vec!["tail", "--since", "1h", "--until", "1d", &dir], 2, "exchange them"),
        (vec!["import", "--skip", "5", &dir, &file], 2, "--skip 5"),
        (vec!["repair", "--keep", "before", "--into", "x", &dir], 2, "--into"),
    ] {
        let text = said(&arguments, status);
        assert!(text.contains(part), "{arguments:?}: {text}");
        for word in ["application_version", "file_mode", "builder", "WalBuilder", "Options("] {
            assert!(!text.contains(word), "{arguments:?}: {text}");
        }
    }
}
