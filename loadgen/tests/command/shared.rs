//! Measurements that several tests share. The first test that needs one makes it.

use std::sync::OnceLock;

use serde_json::Value;

use crate::place::{Place, SMALL};

/// A measurement: the exit status, and every output of the command.
pub(crate) struct Measured {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) table: String,
    pub(crate) json: Value,
    pub(crate) page: String,
    pub(crate) markdown: Option<String>,
}

fn measure(name: &str, line: &str) -> Measured {
    let place = Place::new(&format!("shared-{name}"));
    let line = format!("{line} --json j --html h");
    let output = place.run(&line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let read = |file: &str| {
        std::fs::read_to_string(place.path(file))
            .unwrap_or_else(|e| panic!("{line}: {e}: {stderr}"))
    };
    let json = serde_json::from_str(&read("j")).unwrap();
    let (table, page) = (String::from_utf8(output.stdout).unwrap(), read("h"));
    let mut left = place.entries();
    left.sort();
    left.retain(|name| name != "m");
    assert_eq!(left, ["h", "j"], "{line} leaves files");
    let markdown = std::fs::read_to_string(place.path("m")).ok();
    Measured { code: output.status.code(), table, json, page, markdown, line }
}

macro_rules! shared {
    ($($(#[$doc:meta])* $name:ident: $line:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name() -> &'static Measured {
            static MEASURED: OnceLock<Measured> = OnceLock::new();
            MEASURED.get_or_init(|| measure(stringify!($name), &format!("{}", $line)))
        }
    )*};
}

shared! {
    /// An open loop with every part of a report: readers, verification, requirements, warm-up.
    open_run: format!(
        "--rate 2k --warm-up 50ms --duration 2500ms --verify --baseline 50ms --require rate>0 \
         --followers 1 --threads 2 {SMALL}"
    );
    /// A closed loop.
    closed_run: format!("--mode blocking --duration 1200ms --baseline 50ms {SMALL}");
    /// An open loop at a rate that no disk reaches.
    overloaded_run: format!("--rate 900m --size 4k --duration 600ms --baseline 0 {SMALL}");
    /// A bound that no disk reaches: the first rate is the last one, and there is no knee.
    sweep_without_a_knee: format!(
        "sweep --bound 1us --step-time 100ms --precision 0 --require knee>1 {SMALL}"
    );
    /// A bound that low rates keep.
    sweep_with_a_knee: format!(
        "sweep --bound 10s --start 30k --step-time 100ms --precision 1 --threads 2 \
         --arrivals constant --durability interval:5ms --step-limit 11s --seed 3 {SMALL}"
    );
    /// The raw device in every shape.
    device: "device --time 100ms --require rate>1,p99<1h";
    /// The raw device against two published rules. Larger writes need fewer samples.
    rules: "device --for etcd,raft --size 16k";
    /// Three workloads of the suite.
    suite: "bench --rounds 2 --cell-time 10ms --only W1,W5,W9 --markdown m";
}
