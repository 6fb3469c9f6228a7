//! What a grade file says of itself: the variable `grade` of its first play.

use serde::{Deserialize, Serialize};

use crate::base::diagnostic::Diagnostic;
use crate::base::yaml::Node;
use crate::playbook::model::Playbook;

/// ```text
/// grade:
///   exercise: 01-lvs-dr
///   title: LVS-DR (direct routing)
///   points: 20
///   ro: {title: LVS-DR (rutare directă)}
///   path:                                  a packet's way, for the picture
///     - {from: client, to: saisp-vm-1, label: request, ro: cerere, checks: [vip, arp]}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub exercise: String,
    pub title: String,
    pub points: f64,
    pub path: Vec<Hop>,
}

/// One stretch of a packet's way; it is drawn as broken when one of its checks failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    pub from: String,
    pub to: String,
    pub label: String,
    pub checks: Vec<String>,
}

impl Header {
    /// Reads the header in a language and holds it against the checks below it.
    pub fn of(playbook: &Playbook, language: &str) -> Result<Self, Diagnostic> {
        let first = playbook.plays.first();
        let node = first
            .and_then(|play| play.vars.get("grade"))
            .ok_or_else(|| {
                Diagnostic::error("a grade file's first play has the variable `grade`").help(
                    "add `vars: {grade: {exercise: 01-lvs-dr, title: …, points: 20}}`; playbooks/grade/ has examples",
                )
            })?;
        let missing = |name: &str| {
            Diagnostic::error(format!("`grade` has no `{name}`"))
                .at(&node.origin)
                .help("it has exercise, title, points and, for the picture, path")
        };
        let text = |node: Option<&Node>| node.map(Node::key_text);
        let translated = node.get(language);
        let title = translated
            .and_then(|words| words.get("title"))
            .or_else(|| node.get("title"));
        let points: f64 = text(node.get("points"))
            .and_then(|points| points.parse().ok())
            .ok_or_else(|| missing("points"))?;
        let sum: f64 = playbook.checks().iter().map(|check| check.points).sum();
        if (sum - points).abs() > 0.001 {
            return Err(Diagnostic::error(format!(
                "the checks are worth {sum} points together, `grade` says {points}"
            ))
            .at(&node.get("points").unwrap_or(node).origin));
        }
        let hops = node.get("path").and_then(Node::as_seq).unwrap_or_default();
        let path = hops
            .iter()
            .map(|hop| {
                let need = |name: &str| {
                    text(hop.get(name)).ok_or_else(|| {
                        Diagnostic::error(format!("a stretch of `path` has no `{name}`"))
                            .at(&hop.origin)
                    })
                };
                let checks = hop.get("checks").and_then(Node::as_seq).unwrap_or_default();
                Ok(Hop {
                    from: need("from")?,
                    to: need("to")?,
                    label: text(hop.get(language))
                        .or_else(|| text(hop.get("label")))
                        .unwrap_or_default(),
                    checks: checks.iter().map(Node::key_text).collect(),
                })
            })
            .collect::<Result<_, Diagnostic>>()?;
        Ok(Self {
            exercise: text(node.get("exercise")).ok_or_else(|| missing("exercise"))?,
            title: text(title).ok_or_else(|| missing("title"))?,
            points,
            path,
        })
    }
}
