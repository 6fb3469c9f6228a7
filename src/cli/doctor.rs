//! `halab doctor`: each prerequisite of a lab, found or missing, and its repair.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::base::diagnostic::{Colour, Diagnostic, Source};
use crate::vm::doctor::{Finding, Lack, Repair, State};
use crate::vm::host::{self, Examination};
use crate::vm::image::Image;
use crate::vm::progress::{self, Progress};
use crate::vm::recipe::Recipe;
use crate::vm::spec::Accelerator;

use super::args::Doctor;
use super::exit::Exit;
use super::settings::Settings;

#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the image's recipe cannot be built\n{}", rendered(.0))]
    Invalid(Vec<Diagnostic>),
}

/// Reads the lab's recipe, `vm/image.yml`.
pub fn recipe(settings: &Settings) -> Result<Recipe, RecipeError> {
    let path = settings.folder.path("vm/image.yml");
    let text = fs::read_to_string(&path).map_err(|source| RecipeError::Read {
        path: path.clone(),
        source,
    })?;
    Recipe::parse(&Source::new(path.to_string_lossy(), text)).map_err(RecipeError::Invalid)
}

fn rendered(problems: &[Diagnostic]) -> String {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| problem.render(Colour::Never))
        .collect();
    texts.join("\n\n")
}

/// Makes the host ready for the lab; see [`host::ensure`].
pub fn ensure(settings: &Settings, progress: &dyn Progress) -> anyhow::Result<Accelerator> {
    let image = Image::in_cache(&settings.cache_dir, &recipe(settings)?.hash());
    Ok(host::ensure(&settings.cache_dir, &image, progress)?)
}

/// Shows what is there and what is not, after mending what can be mended where that was asked for.
pub fn doctor(settings: &Settings, args: &Doctor) -> anyhow::Result<Exit> {
    let progress = progress::for_user(settings.json);
    let image = Image::in_cache(&settings.cache_dir, &recipe(settings)?.hash());
    let look = || Examination::of_host(&settings.cache_dir, &image, &*progress);
    let mut examination = look();
    let mut repair = examination.repair();
    if args.fix
        && examination.facts.is_root
        && let Some(plan) = &repair
    {
        host::carry_out(plan, &settings.cache_dir, &*progress)?;
        examination = look();
        repair = examination.repair();
    }
    super::say(&if settings.json {
        as_json(&examination).to_string()
    } else {
        as_table(&examination, repair.as_ref())
    });
    Ok(if examination.is_ready() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn as_table(examination: &Examination, repair: Option<&Repair>) -> String {
    let width = examination
        .findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or_default();
    let mut table = String::new();
    for finding in &examination.findings {
        let (word, text) = match &finding.state {
            State::Found(detail) => ("ok", detail),
            State::Limited(lack) => ("limited", &lack.what),
            State::Missing(lack) => ("MISSING", &lack.what),
        };
        line(
            &mut table,
            &format!("{word:7}  {:width$}  {text}", finding.name),
        );
        if let State::Limited(lack) | State::Missing(lack) = &finding.state {
            let indent = " ".repeat(width + 11);
            line(&mut table, &format!("{indent}{}", lack.why));
            line(&mut table, &format!("{indent}{}", lack.how));
        }
    }
    line(&mut table, "");
    table.push_str(&verdict(examination, repair));
    table
}

fn verdict(examination: &Examination, repair: Option<&Repair>) -> String {
    if examination.is_ready() {
        return format!(
            "this machine is ready; the lab's machines run under {}",
            match examination.accelerator() {
                Accelerator::Kvm => "KVM",
                Accelerator::Tcg => "emulation",
            }
        );
    }
    let Some(repair) = repair else {
        return "this machine is not ready; the lines above say how to mend it".to_owned();
    };
    if examination.facts.is_root {
        return "this machine is not ready; `halab doctor --fix` installs what apt has".to_owned();
    }
    let mut text = String::from(
        "this machine is not ready; `sudo halab doctor --fix` does this, or do it by hand:\n",
    );
    if let Some((path, content)) = &repair.sources {
        line(&mut text, &format!("  sudo tee {path} <<'END'"));
        text.push_str(content);
        line(&mut text, "END");
    }
    for command in &repair.commands {
        line(&mut text, &format!("  sudo {}", command.join(" ")));
    }
    text.trim_end().to_owned()
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("a string takes all that is written");
}

fn as_json(examination: &Examination) -> Value {
    let findings: Vec<Value> = examination.findings.iter().map(finding_json).collect();
    json!({
        "ready": examination.is_ready(),
        "accelerator": examination.accelerator(),
        "findings": findings,
    })
}

fn finding_json(finding: &Finding) -> Value {
    let lacking = |state: &str, lack: &Lack| {
        json!({
            "name": finding.name,
            "state": state,
            "what": lack.what,
            "why": lack.why,
            "how": lack.how,
            "fixable": finding.fix.is_some(),
        })
    };
    match &finding.state {
        State::Found(detail) => json!({
            "name": finding.name,
            "state": "found",
            "detail": detail,
        }),
        State::Limited(lack) => lacking("limited", lack),
        State::Missing(lack) => lacking("missing", lack),
    }
}
