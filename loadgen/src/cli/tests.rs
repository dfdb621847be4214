use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("loadgen").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn defaults_run_ten_seconds_of_one_pipelined_producer() {
    let args = parse("").unwrap();
    args.check().unwrap();
    assert_eq!((args.threads, args.workload_mode()), (1, Mode::Pipelined));
    assert_eq!(args.time_limit(), Some(Duration::from_secs(10)));
    assert_eq!(parse("--records 5").unwrap().time_limit(), None);
    assert_eq!(parse("--tasks 5").unwrap().workload_mode(), Mode::Blocking);
    assert_eq!(parse("--tasks 5 --mode pipelined").unwrap().workload_mode(), Mode::Pipelined);
}

#[test]
fn durabilities_are_parsed() {
    assert_eq!(parse_durability("group"), Ok(Durability::EveryGroup));
    let every = Duration::from_millis(20);
    assert_eq!(parse_durability("interval:20ms"), Ok(Durability::Interval(every)));
    for durability in [Durability::EveryGroup, Durability::Interval(every), Durability::Manual] {
        assert_eq!(parse_durability(&durability_name(durability)), Ok(durability));
    }
    for bad in ["", "interval", "interval:", "interval:0", "manual:1", "never"] {
        assert!(parse_durability(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_suite_takes_workloads_and_what_they_need() {
    let bench = |line: &str| match parse(&format!("bench {line}")).unwrap().command {
        Some(Command::Bench(args)) => args,
        _ => panic!("another command"),
    };
    assert!(bench("").check().is_ok() && bench("").wants("W7"));
    let some = bench("--only w6,W1");
    assert!(some.check().is_ok());
    assert!(some.wants("W6") && some.wants("W1") && some.wants("W4") && !some.wants("W2"));
    assert!(bench("--only W10").check().is_err());
    assert!(bench("--rounds 0").check().is_err());
    assert!(parse("--threads 4 bench").is_err());
}

#[test]
fn rates_take_suffixes() {
    for (text, rate) in [("1", 1.0), ("20k", 20e3), ("1.5M", 1.5e6), ("0.5", 0.5)] {
        assert_eq!(parse_rate(text), Ok(rate));
    }
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    for bad in [
        "--size 9-1",
        "--size x",
        "--duration 0",
        "--duration -1",
        "--mode both",
        "--backend tape",
        "--commit-method hope",
        "--input a --size 1",
        "--depth x",
        "--unknown",
        "--rate 0",
        "--rate -5",
        "--rate nan",
        "--rate fast",
        "--replay a --rate 5",
        "--replay a --size 4",
        "--replay a --input b",
        "--arrivals constant",
        "--rate 1k --arrivals burst:1",
        "--rate 1k --arrivals never",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    for bad in [
        "--threads 0",
        "--threads 9999999",
        "--tasks 0",
        "--records 0",
        "--size 2k --max-record 1k",
        "--rate 5 --mode blocking",
        "--rate 5 --durability manual",
        "--replay a --mode blocking",
        "--replay a --durability manual",
        "--backend discard --verify",
    ] {
        let e = parse(bad).unwrap().check().unwrap_err();
        assert_eq!(e.exit_status(), 2, "{bad}");
    }
}
