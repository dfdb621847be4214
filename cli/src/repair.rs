//! `repair`: first said, then done.

use std::io::Write;

use anstyle::AnsiColor;
use ringwal::inspect::{Directory, Keep, Repair};
use serde_json::{Value, json};

use crate::args::{Cli, Kept, Repair as Args};
use crate::error::{Error, Result};
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
    let other = match keep {
        Keep::Before => Keep::After,
        Keep::After => Keep::Before,
    };
    let other = directory.plan_repair(&survey, other).ok().flatten();
    // A part that was asked for by name may hold no record.
    let planned = match args.keep {
        Some(_) => directory.plan_repair_keeping_nothing(&survey, keep),
        None => directory.plan_repair(&survey, keep),
    };
    if let Err(ringwal::Error::Corruption { reason, .. }) = &planned {
        if args.json {
            writeln!(out, "{:#}", json!({ "survey": survey_json(&survey), "plan": null }))?;
        } else {
            tell_damage(&mut out, &survey)?;
        }
        out.flush()?;
        return Err(Error::Damaged(format!("{reason}; {}", instead(keep, other.as_ref()))));
    }
    let Some(plan) = planned? else {
        if args.json {
            writeln!(out, "{:#}", json!({ "survey": survey_json(&survey), "plan": null }))?;
        } else {
            writeln!(out, "sound: there is nothing to repair")?;
        }
        return Ok(());
    };
    if !args.json {
        tell_damage(&mut out, &survey)?;
        tell(&mut out, &plan)?;
        if let Some(other) = other.filter(|other| other.to != plan.to || other.from != plan.from) {
            let records = counted(other.records, "record", "records");
            writeln!(
                out,
                "         or, {}: {records}, {} to {}",
                flag(keep),
                other.from,
                other.to
            )?;
        }
        out.flush()?;
    }
    let after = if args.apply {
        plan.apply()?;
        Some(look(cli, &directory)?)
    } else {
        None
    };
    if args.json {
        let all = json!({
            "survey": survey_json(&survey),
            "plan": plan_json(&plan, args.apply),
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

/// How the other part is kept.
fn flag(keep: Keep) -> &'static str {
    match keep {
        Keep::Before => "with --keep after",
        Keep::After => "with --keep before",
    }
}

/// What can be done where nothing can be kept.
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
            "         {leaving} service; `ringwal export --damaged` writes them out before"
        )?;
    }
    for name in &plan.rebuilt {
        writeln!(
            out,
            "         rebuilds the header and length of {name}, and keeps the file beside"
        )?;
    }
    for (from, to) in &plan.restored {
        writeln!(out, "         brings back what truncate_after had cut from {from} to {to}")?;
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
            "         moves {name} away: it has done with more than is kept, or is damaged"
        )?;
    }
    Ok(writeln!(out, "         into {}", plan.quarantine.display())?)
}
