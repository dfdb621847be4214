//! A disk that fills during the run: the figures until then are reported.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;

/// A small filesystem in memory, unmounted on drop. `None` without permission to mount.
struct Small(PathBuf);

impl Small {
    fn mount(place: &Place) -> Option<Small> {
        let at = place.path("small");
        std::fs::create_dir(&at).unwrap();
        let line = ["-t", "tmpfs", "-o", "size=96m", "small"];
        let mounted = Command::new("mount").args(line).arg(&at).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Small(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn disk_full_during_the_run_keeps_the_figures() {
    for (n, mode) in [
        "--mode pipelined --size 1k",
        "--mode blocking --threads 2 --size 4k",
        "--tasks 3 --size 4k",
    ]
    .iter()
    .enumerate()
    {
        let place = Place::new(&format!("full-disk-{n}"));
        let Some(small) = Small::mount(&place) else {
            #[allow(clippy::print_stderr, reason = "why nothing is tested")]
            let () = eprintln!("skipped: no filesystem can be mounted here");
            return;
        };
        let line = format!(
            "--dir small/log --no-recycle --segment-size 1m --duration 10m --baseline 0 --raw 0 --verify {mode}"
        );
        let mut command = place.command(&format!("{line} --json out.json --hgrm out.hgrm"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = small.0.join("log");
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::fs::read_dir(&log).map_or(0, Iterator::count) < 4 {
            assert!(Instant::now() < deadline, "{mode}: the run does not begin");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Another program takes the rest of the disk.
        let mut other = std::fs::File::create(small.0.join("other")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(7), &mut other);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let table = String::from_utf8_lossy(&output.stdout);
        let text = std::fs::read(place.path("out.json"));
        let text = text.unwrap_or_else(|e| panic!("{mode}: {e}: {stderr}"));
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        // If the budget ended the run first, the disk was never full.
        if json["ended_by"] == "its disk budget" {
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{mode}: {stderr}");
        assert_eq!(json["ended_by"], "a full disk", "{mode}: {stderr}");
        assert!(json["failure"].as_str().unwrap().contains("failed"), "{mode}: {json:#}");
        assert!(json["records"].as_u64().unwrap() > 0, "{mode}: {json:#}");
        assert!(json["latency_us"]["count"].as_u64().unwrap() > 0, "{mode}: {json:#}");
        assert!(table.contains("FAILED") && table.contains("ended by a full disk"), "{table}");
        assert!(std::fs::read_to_string(place.path("out.hgrm")).unwrap().contains("Total count"));
    }
}
