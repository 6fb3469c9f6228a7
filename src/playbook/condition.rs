//! `when`, `until`, `changed_when`, `failed_when`, `that`: expressions that must be booleans.
//!
//! Since 2.19 Ansible takes no other type for true or false, and neither do we: a
//! non-empty text in a condition is nearly always a forgotten comparison.

use minijinja::value::{Value, ValueKind};

use super::render::Renderer;
use super::template;
use super::vars::Scope;
use crate::base::diagnostic::{Diagnostic, Origin, Source};
use crate::base::yaml::{Kind, Node};

/// What a list of conditions came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// The first condition that does not hold, as written: `false_condition` in results.
    Fails(String),
}

impl Verdict {
    pub fn holds(&self) -> bool {
        *self == Self::Holds
    }
}

/// Asks conditions in order; all must hold, and those after the first that does not are not asked.
pub fn evaluate(
    renderer: &Renderer,
    conditions: &[Node],
    scope: &Scope,
) -> Result<Verdict, Diagnostic> {
    for condition in conditions {
        if !holds(renderer, condition, scope)? {
            return Ok(Verdict::Fails(written(condition)));
        }
    }
    Ok(Verdict::Holds)
}

/// A condition as it was written.
pub fn written(condition: &Node) -> String {
    match &condition.kind {
        Kind::Str(text) => text.clone(),
        _ => condition.origin.text().trim().to_owned(),
    }
}

fn holds(renderer: &Renderer, condition: &Node, scope: &Scope) -> Result<bool, Diagnostic> {
    match &condition.kind {
        Kind::Bool(value) => Ok(*value),
        Kind::Str(text) if text.trim().is_empty() => {
            Err(Diagnostic::error("an empty condition").at(&condition.origin))
        }
        Kind::Str(text) => {
            let context = renderer.context(scope, &[]);
            let value = renderer.evaluate(condition, &context)?;
            let value = match value.as_str() {
                // A template gave the condition itself: `when: "x == '{{ y }}'"`.
                Some(inner) if template::is_template(text) => {
                    let source = Source::new(format!("{} (rendered)", condition.origin), inner);
                    let origin = Origin::new(&source, 0, inner.len());
                    let evaluated = renderer.core().expression(inner, &origin, &context);
                    evaluated?
                }
                _ => value,
            };
            boolean(&value, condition)
        }
        _ => Err(Diagnostic::error(format!(
            "a condition is an expression, this is {}",
            condition.kind_name()
        ))
        .at(&condition.origin)),
    }
}

fn boolean(value: &Value, condition: &Node) -> Result<bool, Diagnostic> {
    if value.kind() == ValueKind::Bool {
        return Ok(value.is_true());
    }
    let (found, help) = match value.kind() {
        ValueKind::String => ("text", "compare it, or ask `… | bool` or `… | length > 0`"),
        ValueKind::Number => ("a number", "compare it: `… != 0`"),
        ValueKind::None => ("nothing (null)", "ask `… is not none`"),
        ValueKind::Seq => ("a list", "ask `… | length > 0`"),
        ValueKind::Map => ("a mapping", "ask `… | length > 0`"),
        _ => ("no boolean", "ask `… is truthy`"),
    };
    Err(Diagnostic::error(format!(
        "a condition must be true or false, this is {found}"
    ))
    .at(&condition.origin)
    .label(format!("gives {found}"))
    .help(help))
}
