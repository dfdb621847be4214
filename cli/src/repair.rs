//! `repair`: first said, then done.

use std::io::Write;

use anstyle::AnsiColor;
use ringwal::inspect::{Directory, Keep, Repair, Survey};
use serde_json::{Value, json};

use crate::args::{Cli, Kept, Repair as Args};
use crate::error::{Error, Result};
use crate::salvage::{beside, count, make};
use crate::survey::{counted, damage_json, look, survey_json, tell_damage};

fn plan_json(plan: &Repair, applied: bool) -> Value {
    json!({
        "applied": applied,
        "for": damage_json(&plan.damage),
        "keeps_from": plan.from.as_u64(),
        "keeps_to": plan.to.as_u64(),
        "keeps_records": plan.records,
        "leaves_out_records": plan.records_leaving,
        "restores": plan.restored.iter().map(|(from, to)| json!([from.as_u64(), to.as_u64()])).collect::<Vec<_>>(),
        "rebuilds": plan.rebuilt,
        "moves": plan.moved,
        "cuts": plan.cut,
        "consumers": plan.consumers,
        "quarantine": plan.quarantine.display().to_string(),
    })
}

pub(crate) fn repair(cli: &Cli, args: &Args) -> Result<()> {
    let directory = Directory::open(&args.dir, &cli.prefix)?;
    let survey = look(cli, &directory)?;
    let keep = match args.keep {
        None | Some(Kept::Before) => Keep::Before,
        Some(Kept::After) => Keep::After,
    };
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    if survey.damaged_places == 0 {
        if args.json {
            writeln!(out, "{:#}", json!({ "survey": survey_json(&survey), "plan": null }))?;
        } else {
            writeln!(out, "sound: there is nothing to repair")?;
        }
        return Ok(());
    }
    let planned = directory.plan_repair_keeping_nothing(&survey, keep);
    if args.keep.is_none() {
        let whole = planned
            .as_ref()
            .is_ok_and(|plan| plan.as_ref().is_none_or(|plan| plan.records_leaving == 0));
        if args.into.is_some() || (!whole && survey.records > 0) {
            return by_salvage(cli, args, &directory, &survey, &mut out);
        }
    }
    let planned = match planned {
        Err(ringwal::Error::Corruption { reason, .. }) => {
            if args.json {
                writeln!(out, "{:#}", json!({ "survey": survey_json(&survey), "plan": null }))?;
            } else {
                tell_damage(&mut out, &survey)?;
            }
            out.flush()?;
            let other = if keep == Keep::Before { Keep::After } else { Keep::Before };
            let other = directory.plan_repair(&survey, other).ok().flatten();
            return Err(Error::Damaged(format!("{reason}; {}", instead(keep, other.as_ref()))));
        }
        planned => planned?,
    };
    match planned {
        Some(plan) => in_place(cli, args, &directory, &survey, &plan, &mut out),
        None => Err(Error::Damaged(format!("{} is damaged", args.dir.display()))),
    }
}

/// Leaves the damaged log unchanged, and copies every intact record into a new log.
fn by_salvage(
    cli: &Cli,
    args: &Args,
    directory: &Directory,
    survey: &Survey,
    out: &mut impl Write,
) -> Result<()> {
    let dest = args.into.clone().unwrap_or_else(|| beside(cli, &args.dir));
    let records = count(directory, survey)?;
    let plan = |keep| directory.plan_repair_keeping_nothing(survey, keep).ok().flatten();
    let others = [("before", plan(Keep::Before)), ("after", plan(Keep::After))];
    if !args.json {
        tell_damage(out, survey)?;
        let kept = counted(records, "intact record", "intact records");
        writeln!(out, "repair   salvages all {kept} into a new log, {}", dest.display())?;
        writeln!(out, "         with new positions, and leaves the damaged log as it is")?;
        for (name, plan) in &others {
            let Some(plan) = plan else { continue };
            let leaving =
                counted(plan.records_leaving, "intact record leaves", "intact records leave");
            writeln!(
                out,
                "         or in place, with --keep {name}: keeps {}, {} to {}; {leaving} service",
                counted(plan.records, "record", "records"),
                plan.from,
                plan.to
            )?;
        }
        writeln!(out, "         `ringwal export --damaged` writes all that is intact to a file")?;
        out.flush()?;
    }
    let salvaged = if args.apply {
        if let Some(pid) = directory.writer() {
            let path = args.dir.join(format!("{}.lock", cli.prefix));
            return Err(ringwal::Error::Locked { path, pid: Some(pid) }.into());
        }
        Some(make(cli, directory, &args.dir, &dest, survey)?)
    } else {
        None
    };
    if args.json {
        let others = others.iter().filter_map(|(name, plan)| Some((*name, plan.as_ref()?)));
        let others: serde_json::Map<_, _> =
            others.map(|(name, plan)| (name.to_owned(), plan_json(plan, false))).collect();
        let place = json!({ "into": dest.display().to_string(), "records": records });
        let all = json!({
            "survey": survey_json(survey),
            "plan": {
                "applied": args.apply,
                "keeps_records": records,
                "leaves_out_records": 0,
                "quarantine": null,
                "salvage": salvaged.as_ref().map_or(place, |salvaged| salvaged.json(&dest)),
            },
            "in_place": others,
            "after": salvaged.as_ref().map(|salvaged| survey_json(&salvaged.after)),
        });
        writeln!(out, "{all:#}")?;
    }
    match salvaged {
        Some(salvaged) if !args.json => salvaged.tell(out, &dest),
        Some(_) => Ok(()),
        None => {
            if !args.json {
                writeln!(out, "nothing was changed; --apply does it")?;
            }
            Err(Error::Damaged(format!("{} is damaged", args.dir.display())))
        }
    }
}

fn in_place(
    cli: &Cli,
    args: &Args,
    directory: &Directory,
    survey: &Survey,
    plan: &Repair,
    out: &mut impl Write,
) -> Result<()> {
    if !args.json {
        tell_damage(out, survey)?;
        tell(out, plan)?;
        out.flush()?;
    }
    let after = if args.apply {
        plan.apply()?;
        Some(look(cli, directory)?)
    } else {
        None
    };
    if args.json {
        let all = json!({
            "survey": survey_json(survey),
            "plan": plan_json(plan, args.apply),
            "after": after.as_ref().map(survey_json),
        });
        writeln!(out, "{all:#}")?;
    }
    match after {
        None => {
            if !args.json {
                writeln!(out, "nothing was changed; --apply does it")?;
            }
            Err(Error::Damaged(format!("{} is damaged", args.dir.display())))
        }
        Some(after) if after.damaged_places > 0 => {
            let places = counted(after.damaged_places, "damaged place is", "damaged places are");
            Err(Error::Damaged(format!("{places} left; repair again")))
        }
        Some(after) => {
            if !args.json {
                let green = AnsiColor::Green.on_default().bold();
                let kept = counted(after.records, "record is", "records are");
                writeln!(out, "{green}repaired{green:#} {kept} kept")?;
            }
            Ok(())
        }
    }
}

/// The option that keeps the other part.
fn flag(keep: Keep) -> &'static str {
    match keep {
        Keep::Before => "with --keep after",
        Keep::After => "with --keep before",
    }
}

/// What to do if this part holds no record.
fn instead(keep: Keep, other: Option<&Repair>) -> String {
    match other {
        Some(other) => {
            let records = counted(other.records, "record is", "records are");
            format!(
                "{} {records} kept, {} to {}; `ringwal export --damaged` saves all that is intact",
                flag(keep),
                other.from,
                other.to
            )
        }
        None => {
            "`ringwal export --damaged` saves what is intact, for an import into a new log".into()
        }
    }
}

fn tell(out: &mut impl Write, plan: &Repair) -> Result<()> {
    let records = counted(plan.records, "record", "records");
    writeln!(out, "repair   keeps {records}, {} to {}", plan.from, plan.to)?;
    if plan.records_leaving > 0 {
        let leaving = counted(plan.records_leaving, "intact record leaves", "intact records leave");
        writeln!(
            out,
            "         {leaving} service; `ringwal salvage` and `ringwal export --damaged` keep them"
        )?;
    }
    for name in &plan.rebuilt {
        writeln!(
            out,
            "         rebuilds the header and length of {name}, and keeps the file beside"
        )?;
    }
    for (from, to) in &plan.restored {
        writeln!(out, "         brings back what truncate_from had cut from {from} to {to}")?;
    }
    match &plan.moved[..] {
        [first, .., last] if plan.moved.len() > 4 => {
            let files = counted(plan.moved.len() as u64, "file", "files");
            writeln!(out, "         moves {files} away, {first} to {last}")?;
        }
        few => {
            for name in few {
                writeln!(out, "         moves {name} away")?;
            }
        }
    }
    if let Some(name) = &plan.cut {
        writeln!(out, "         cuts {name} there, and keeps all of it beside")?;
    }
    for name in &plan.consumers {
        writeln!(
            out,
            "         moves {name} away: its position lies beyond the kept records, or its file is damaged"
        )?;
    }
    Ok(writeln!(out, "         into {}", plan.quarantine.display())?)
}
