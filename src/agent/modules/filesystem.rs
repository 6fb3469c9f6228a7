//! `filesystem`: asks blkid what is there, calls mkfs or wipefs.

use std::fs;

use super::super::error::ModuleError;
use super::super::work::Work;
use super::super::{files, process};
use crate::task::filesystem::{Facts, Plan, command, mounted_at, plan};
use crate::task::outcome::{Outcome, Refusal};

/// blkid's code for "nothing known is there".
const NOTHING_FOUND: i32 = 2;

pub(super) fn filesystem(work: &Work) -> Result<Outcome, ModuleError> {
    let device = work.required_path("dev");
    let shown = device.display().to_string();
    if let Err(error) = fs::File::open(&device) {
        return Err(Refusal::new(format!("device {shown} cannot be opened: {error}")).into());
    }
    let names: Vec<String> = fs::canonicalize(&device)
        .map(|path| path.display().to_string())
        .into_iter()
        .chain([shown.clone()])
        .collect();
    let facts = Facts {
        found: signature(work, &shown)?,
        mounted_at: mounted_at(&files::text_of("/proc/self/mounts"), &names),
    };
    let args = work.args();
    let plan = plan(args, &facts)?;
    if !work.check {
        match plan {
            Plan::Nothing => {}
            Plan::Make => drop(process::must(work, &command(args))?),
            Plan::Wipe => {
                drop(process::must(
                    work,
                    &["wipefs", "--all", "--force", &shown],
                )?);
            }
        }
    }
    Ok(Outcome::changed(plan != Plan::Nothing)
        .with("dev", shown)
        .with_if("fstype", args.text("fstype"))
        .with_if("found", facts.found))
}

/// Asks for the type of whatever is on the device, past any cache.
fn signature(work: &Work, device: &str) -> Result<Option<String>, ModuleError> {
    let argv = ["blkid", "-p", "-o", "value", "-s", "TYPE", device];
    let ended = process::tool(work, &argv)?;
    match ended.rc {
        0 => Ok(Some(ended.stdout_text().trim().to_owned()).filter(|found| !found.is_empty())),
        NOTHING_FOUND => Ok(None),
        rc => Err(ModuleError::Program {
            command: argv.join(" "),
            rc,
            stderr: ended.stderr_text(),
        }),
    }
}
