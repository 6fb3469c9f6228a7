//! The report's pictures as inline SVG: the machines, a packet's way, when what was looked at.
//!
//! Red is never alone: what is wrong also has a dashed line and a cross.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::outcome::{CheckResult, CheckVerdict, harmless, shortened};
use super::report::ExerciseReport;

/// A machine as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Box {
    pub name: String,
    pub lines: Vec<String>,
}

/// What the pictures show besides the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The client first, then the machines in the topology's order.
    pub boxes: Vec<Box>,
    /// Networks: a name and the boxes on it.
    pub networks: Vec<(String, Vec<String>)>,
}

const BOX_WIDTH: usize = 150;
const BOX_HEIGHT: usize = 64;
const GAP: usize = 24;

/// Draws machines and networks; a machine on which a check failed is marked.
pub fn topology(plan: &Plan, exercise: &ExerciseReport) -> String {
    let wrong = wrong_machines(exercise);
    let width = plan.boxes.len() * (BOX_WIDTH + GAP) + GAP;
    let height = 40 + BOX_HEIGHT + plan.networks.len() * 34;
    let mut svg = open(width, height);
    let place: BTreeMap<&str, usize> = plan
        .boxes
        .iter()
        .enumerate()
        .map(|(index, each)| (each.name.as_str(), GAP + index * (BOX_WIDTH + GAP)))
        .collect();
    for (index, (name, members)) in plan.networks.iter().enumerate() {
        let y = 30 + BOX_HEIGHT + index * 34;
        let xs: Vec<usize> = members
            .iter()
            .filter_map(|member| place.get(member.as_str()))
            .map(|x| x + 40 + index * 36)
            .collect();
        let (Some(first), Some(last)) = (xs.iter().min(), xs.iter().max()) else {
            continue;
        };
        let _ = write!(svg, r#"<path class="net" d="M{first} {y}H{last}"/>"#);
        for x in &xs {
            let top = 10 + BOX_HEIGHT;
            let _ = write!(svg, r#"<path class="net" d="M{x} {top}V{y}"/>"#);
        }
        let _ = write!(
            svg,
            r#"<text class="small" x="{}" y="{}">{}</text>"#,
            first + 4,
            y + 14,
            escaped(name)
        );
    }
    for each in &plan.boxes {
        let x = place[each.name.as_str()];
        let checks = wrong.get(each.name.as_str());
        let class = if checks.is_some() { "box bad" } else { "box" };
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{x}" y="10" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>"#
        );
        let mark = if checks.is_some() { " ✗" } else { "" };
        let _ = write!(
            svg,
            r#"<text class="name" x="{}" y="30">{}{mark}</text>"#,
            x + 10,
            escaped(&each.name)
        );
        for (line, text) in each.lines.iter().take(2).enumerate() {
            let _ = write!(
                svg,
                r#"<text class="small" x="{}" y="{}">{}</text>"#,
                x + 10,
                47 + line * 15,
                escaped(text)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Draws a packet's way as arrows between life lines; a stretch whose check failed is marked.
pub fn path(plan: &Plan, exercise: &ExerciseReport) -> Option<String> {
    if exercise.path.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    for hop in &exercise.path {
        for name in [hop.from.as_str(), hop.to.as_str()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.sort_by_key(|name| plan.boxes.iter().position(|each| each.name == *name));
    let step = BOX_WIDTH + GAP;
    let x = |name: &str| {
        let index = names.iter().position(|each| *each == name).unwrap_or(0);
        GAP + BOX_WIDTH / 2 + index * step
    };
    let height = 50 + exercise.path.len() * 44;
    let mut svg = open(names.len() * step + GAP, height);
    for name in &names {
        let at = x(name);
        let _ = write!(
            svg,
            r#"<text class="name mid" x="{at}" y="20">{}</text><path class="life" d="M{at} 30V{height}"/>"#,
            escaped(name)
        );
    }
    for (index, hop) in exercise.path.iter().enumerate() {
        let y = 62 + index * 44;
        let lost: Vec<&CheckResult> = exercise
            .checks
            .iter()
            .filter(|check| hop.checks.contains(&check.id) && !check.passed())
            .collect();
        // The way of one packet stands for that of all; what fails may be another machine's.
        let hosts: BTreeSet<&str> = lost
            .iter()
            .flat_map(|check| check.hosts.iter().map(String::as_str))
            .collect();
        let is_drawn = hosts.is_empty()
            || hosts
                .iter()
                .any(|host| [&*hop.from, &*hop.to].contains(host));
        let elsewhere = if is_drawn {
            String::new()
        } else {
            let hosts: Vec<&str> = hosts.into_iter().collect();
            format!(" ({})", hosts.join(", "))
        };
        let (from, to) = (x(&hop.from), x(&hop.to));
        let class = if lost.is_empty() { "way" } else { "way bad" };
        let (tip, barb) = if to > from {
            (to - 2, to - 10)
        } else {
            (to + 2, to + 10)
        };
        let _ = write!(
            svg,
            r#"<path class="{class}" d="M{from} {y}H{tip}M{barb} {}L{tip} {y}L{barb} {}"/>"#,
            y - 5,
            y + 5
        );
        let mark = if lost.is_empty() { "" } else { "✗ " };
        let class = if lost.is_empty() {
            "small mid"
        } else {
            "small mid red"
        };
        let _ = write!(
            svg,
            r#"<text class="{class}" x="{}" y="{}">{mark}{}. {}{}</text>"#,
            usize::midpoint(from, to),
            y - 8,
            index + 1,
            escaped(&hop.label),
            escaped(&elsewhere)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Draws when each check was looked at and how long it took.
pub fn timeline(exercise: &ExerciseReport) -> String {
    const LABEL: f64 = 330.0;
    const LENGTH: f64 = 420.0;
    /// What fits before the bars.
    const LABEL_CHARS_MAX: usize = 52;
    const ROW: usize = 20;
    let begin = exercise
        .checks
        .iter()
        .map(|check| check.started_seconds)
        .fold(f64::INFINITY, f64::min);
    let end = exercise
        .checks
        .iter()
        .map(|check| check.started_seconds + check.seconds)
        .fold(0.0, f64::max);
    let span = (end - begin).max(0.1);
    let height = exercise.checks.len() * ROW + 24;
    let mut svg = open(800, height);
    for (index, check) in exercise.checks.iter().enumerate() {
        let y = index * ROW;
        let class = match check.verdict {
            CheckVerdict::Passed => "bar",
            CheckVerdict::Failed => "bar bad",
            CheckVerdict::Skipped => "bar none",
        };
        let x = LABEL + (check.started_seconds - begin) / span * LENGTH;
        let width = (check.seconds / span * LENGTH).max(3.0);
        let mark = if check.passed() { "" } else { "✗ " };
        let _ = write!(
            svg,
            r#"<text class="small" x="0" y="{}">{mark}{}</text><rect class="{class}" x="{x:.1}" y="{}" width="{width:.1}" height="12"/>"#,
            y + 14,
            escaped(&shortened(&check.name, LABEL_CHARS_MAX)),
            y + 4
        );
    }
    let _ = write!(
        svg,
        r#"<text class="small" x="{LABEL}" y="{}">0 s</text><text class="small" x="{}" y="{}">{span:.1} s</text></svg>"#,
        height - 6,
        LABEL + LENGTH,
        height - 6
    );
    svg
}

/// Names the machines on which a check failed, and the checks.
pub(super) fn wrong_machines(exercise: &ExerciseReport) -> BTreeMap<&str, Vec<String>> {
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for check in &exercise.checks {
        for host in &check.hosts {
            wrong.entry(host).or_default().push(check.name.clone());
        }
    }
    wrong
}

fn open(width: usize, height: usize) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img">"#
    )
}

fn escaped(text: &str) -> String {
    harmless(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    fn plan() -> Plan {
        let named = |name: &str| Box {
            name: name.into(),
            lines: vec!["10.0.0.1".into()],
        };
        Plan {
            boxes: ["client", "saisp-vm-1", "saisp-vm-2"].map(named).to_vec(),
            networks: vec![(
                "br0".into(),
                ["client", "saisp-vm-2"].map(String::from).to_vec(),
            )],
        }
    }

    #[test]
    fn what_is_wrong_is_marked_without_colour_too() {
        let report = sample();
        let exercise = &report.exercises[0];
        let drawn = topology(&plan(), exercise);
        assert!(
            drawn.contains("saisp-vm-2 ✗") && !drawn.contains("saisp-vm-1 ✗"),
            "{drawn}"
        );
        let way = path(&plan(), exercise).expect("it has a path");
        assert!(way.contains("✗ 2. saisp-vm-1 → saisp-vm-2"), "{way}");
        assert!(!way.contains("✗ 1."), "{way}");
        assert_eq!(timeline(exercise).matches("<rect").count(), 3);
        // A packet to the one stands for those to the other.
        let mut exercise = exercise.clone();
        let failed = exercise.checks.iter_mut().find(|check| check.id == "b");
        failed.expect("it is there").hosts = vec!["saisp-vm-3".into()];
        let way = path(&plan(), &exercise).expect("it has a path");
        assert!(way.contains("saisp-vm-2 (saisp-vm-3)</text>"), "{way}");
    }
}
