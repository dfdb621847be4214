//! The ledger: a file with the sequences that were run on the simulated disk, their commit and
//! their duration.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const HEAD: &str = "commit\tfirst seed\tsequences\toperations\tseconds\n";

pub(crate) struct Ledger {
    path: PathBuf,
    commit: String,
}

impl Ledger {
    pub(crate) fn open() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let describe = ["describe", "--always", "--dirty", "--abbrev=10"];
        let git = Command::new("git").args(describe).current_dir(&root).output().unwrap();
        let commit = String::from_utf8(git.stdout).unwrap().trim().to_owned();
        let path = root.join("tests/ledgers/model.tsv");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            fs::write(&path, HEAD).unwrap();
        }
        Ledger { path, commit }
    }

    /// The first seed that no line covers.
    pub(crate) fn next(&self) -> u64 {
        let text = fs::read_to_string(&self.path).unwrap();
        let ends = text.lines().skip(1).map(|line| {
            let mut columns = line.split('\t').skip(1).map(|n| n.parse::<u64>().unwrap());
            columns.next().unwrap() + columns.next().unwrap()
        });
        ends.max().unwrap_or(0)
    }

    pub(crate) fn enter(&self, first: u64, sequences: u64, operations: u64, took: Duration) {
        let (commit, seconds) = (&self.commit, took.as_secs());
        let line = format!("{commit}\t{first}\t{sequences}\t{operations}\t{seconds}\n");
        let mut file = fs::OpenOptions::new().append(true).open(&self.path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
