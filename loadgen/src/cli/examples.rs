//! What follows the options in `--help`: examples, and what the exit status means.

/// In every help.
macro_rules! with_status {
    ($examples:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "\nExit status: 0 done; 1 a log, machine or comparison failed; 2 the arguments cannot work;\n",
            "99 what is required does not hold; 130 interrupted before anything could be concluded."
        )
    };
}

pub(super) const RUN: &str = with_status!(
    "  loadgen                                         what this disk and this log can do together
  loadgen --dir /data/try --duration 60           on another disk, for longer
  loadgen --mode blocking --threads 64            64 threads, each waits until its record is durable
  loadgen --rate 100k --arrivals burst:500        an open loop; latencies count from the arrival
  loadgen --rate 2k --tasks 100                   a hundred handlers, which wait for each record
  loadgen --size 100:9,4k-64k:1                   nine small records to one large
  loadgen --replay trace --logs 4                 recorded times and sizes, over four logs
  loadgen --sample /var/log/syslog --verify       records like those lines, every one compared in the end
  loadgen --rate 50k --require 'p99<5ms'          99 if that does not hold
  loadgen --html run.html --json run.json         a page with plots, and figures for programs
"
);

pub(super) const DEVICE: &str = with_status!(
    "  loadgen device                                  the disk under the current directory
  loadgen device /data --time 60                  another, for longer
  loadgen device --for etcd /var/lib/etcd         PASS or FAIL, by etcd's own rule
  loadgen device --json disk.json                 to be compared with a later one: loadgen compare
"
);

pub(super) const COMPARE: &str = with_status!(
    "  loadgen bench --json before.json                measure, change something, and measure again:
  loadgen bench --json after.json
  loadgen compare before.json after.json          1 if a row is worse by more than 5 % beyond noise, or missing
  loadgen compare before.json after.json --tolerance 10 --json
"
);

pub(super) const AB: &str = with_status!(
    "  loadgen ab ./loadgen-before ./loadgen-after     two binaries
  loadgen ab '--depth 1' '--depth 4' -- --mode blocking --threads 8
  loadgen ab ./before ./after --pairs 20 --json ab.json -- --rate 50k
"
);

pub(super) const CRASH: &str = with_status!(
    "  loadgen crash                                   twenty writers are killed
  loadgen crash --rounds 1000 --dir /data/crash   on another disk, for long

To pull a real plug, on a machine that stays on, then on the one that does not, then there again:
  loadgen witness --listen 0.0.0.0:4242
  loadgen crash --dir /data/crash --witness HOST:4242
  loadgen crash --dir /data/crash --witness HOST:4242 --check
"
);

pub(super) const WITNESS: &str = with_status!(
    "  loadgen witness                                 on all addresses, port 4242, kept in loadgen-acks
  loadgen witness --listen 10.0.0.5:4242 --acks monday
"
);

pub(super) const SWEEP: &str = with_status!(
    "  loadgen sweep                                   the highest rate with p99.9 under 10 ms
  loadgen sweep --bound 2ms --step-time 10 --html sweep.html
  loadgen sweep --size 4k --dir /data/try --threads 4 --require 'knee>20k'
"
);

pub(super) const BENCH: &str = with_status!(
    "  loadgen bench                                   all nine workloads, five rounds: some ten minutes
  loadgen bench --only W1,W4 --rounds 9 --json now.json
  loadgen bench --markdown suite.md
  loadgen bench --dir /mnt/nvme --dir /mnt/hdd    one table with a column for each device
"
);
