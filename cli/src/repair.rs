//! `repair`: first said, then done.

use std::io::Write;

use anstyle::AnsiColor;
use indicatif::HumanCount;
use ringwal::inspect::{Directory, Keep, Repair};
use serde_json::{Value, json};

use crate::args::{Cli, Kept, Repair as Args};
use crate::error::{Error, Result};
use crate::survey::{damage_json, look, survey_json, tell_damage};

fn plan_json(plan: &Repair, applied: bool) -> Value {
    json!({
        "applied": applied,
        "for": damage_json(&plan.damage),
        "keeps_from": plan.from.as_u64(),
        "keeps_to": plan.to.as_u64(),
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
        Kept::Before => Keep::Before,
        Kept::After => Keep::After,
    };
    let mut out = anstream::AutoStream::auto(std::io::stdout().lock());
    let Some(plan) = directory.plan_repair(&survey, keep)? else {
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
            let n = after.damaged_places;
            Err(Error::Damaged(format!("{n} damaged places are left; repair again")))
        }
        Some(after) => {
            if !args.json {
                let green = AnsiColor::Green.on_default().bold();
                writeln!(
                    out,
                    "{green}repaired{green:#} {} records are kept",
                    HumanCount(after.records)
                )?;
            }
            Ok(())
        }
    }
}

fn tell(out: &mut impl Write, plan: &Repair) -> Result<()> {
    writeln!(out, "repair   keeps {} to {}", plan.from, plan.to)?;
    for name in &plan.moved {
        writeln!(out, "         moves {name} away")?;
    }
    if let Some(name) = &plan.cut {
        writeln!(out, "         cuts {name} there, and keeps all of it beside")?;
    }
    for name in &plan.consumers {
        writeln!(out, "         moves {name} away, which has done with more than is kept")?;
    }
    Ok(writeln!(out, "         into {}", plan.quarantine.display())?)
}
