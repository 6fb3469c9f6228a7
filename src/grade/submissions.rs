//! Many hand-ins graded at once: what came of each, who resembles whom, who needs a look.
//!
//! Two works are alike when most of what the smaller one changed since the first boot is in the
//! other one too, piece by piece. What many have in common (a package that the text has
//! everybody install) says nothing and is left out.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::outcome::{CheckVerdict, harmless, shortened};
use super::report::{Report, Student, number};
use super::words::words;

/// What came of one hand-in, as the process that graded it wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub student: Option<Student>,
    /// None: it could not be graded.
    pub report: Option<Report>,
    /// Why it could not be graded.
    pub problem: Option<String>,
    /// It was given up after this time.
    #[serde(default)]
    pub late_after: Option<Duration>,
    /// Its machines' memory was not handed in.
    #[serde(default)]
    pub disks_only: bool,
    /// What was done in it, as sorted hashes of its pieces.
    #[serde(default)]
    pub prints: Vec<u64>,
}

/// One row of the table at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The file's name.
    pub file: String,
    pub outcome: Outcome,
    /// Why somebody should look at it; empty: nobody need.
    pub look: Vec<String>,
}

/// Fewer pieces than this are no work that could be copied: a machine that merely ran writes as
/// many.
const PIECES_MIN: usize = 24;
/// From this share on two works are pointed out.
const ALIKE_PER_CENT: usize = 60;
const REASON_CHARS_MAX: usize = 300;

/// Joins what came of all, by file.
pub fn rows(outcomes: Vec<(String, Outcome)>) -> Vec<Row> {
    let alike = alike(&outcomes);
    let namesakes = namesakes(&outcomes);
    outcomes
        .into_iter()
        .enumerate()
        .map(|(index, (file, outcome))| {
            let mut look = reasons(&outcome);
            look.extend(namesakes.get(&index).cloned());
            look.extend(alike.get(&index).into_iter().flatten().cloned());
            Row {
                file,
                outcome,
                look,
            }
        })
        .collect()
}

fn reasons(outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(problem) = &outcome.problem {
        reasons.push(shortened(&harmless(problem), REASON_CHARS_MAX));
    }
    let Some(report) = &outcome.report else {
        return reasons;
    };
    if outcome.disks_only && !report.is_full() {
        reasons.push(
            "handed in without --running: what commands set up (ipvsadm, ip, iptables) is not in it"
                .to_owned(),
        );
    }
    for exercise in &report.exercises {
        if let Some(stopped) = &exercise.stopped {
            reasons.push(format!("{}: ended early: {stopped}", exercise.exercise));
        }
        let silent = words(&report.language).silent;
        let mut causes = exercise.checks.iter().flat_map(|check| &check.causes);
        if let Some(cause) = causes.find(|cause| cause.ends_with(silent)) {
            reasons.push(format!("{}: {cause}", exercise.exercise));
        }
        let is_skipped = |verdict| verdict == CheckVerdict::Skipped;
        let skipped = exercise
            .checks
            .iter()
            .filter(|check| is_skipped(check.verdict));
        let count = skipped.count();
        if count > 0 && count == exercise.checks.len() {
            reasons.push(format!("{}: nothing could be looked at", exercise.exercise));
        }
    }
    reasons
}

/// Names, for each hand-in, the others of one ID number: a grade book has room for one of them.
fn namesakes(outcomes: &[(String, Outcome)]) -> BTreeMap<usize, String> {
    let mut holders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (_, outcome)) in outcomes.iter().enumerate() {
        let id = outcome
            .student
            .as_ref()
            .map_or("", |student| student.id.trim());
        if !id.is_empty() {
            holders.entry(id).or_default().push(index);
        }
    }
    let mut found = BTreeMap::new();
    for (id, holders) in holders {
        for own in holders.iter().filter(|_| holders.len() > 1) {
            let others: Vec<&str> = holders
                .iter()
                .filter(|other| *other != own)
                .map(|other| outcomes[*other].0.as_str())
                .collect();
            let text = format!("its ID number {id} is that of {} too", others.join(", "));
            found.insert(*own, shortened(&harmless(&text), REASON_CHARS_MAX));
        }
    }
    found
}

/// Names, for each hand-in, those it resembles.
fn alike(outcomes: &[(String, Outcome)]) -> BTreeMap<usize, Vec<String>> {
    let mut owners: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, (_, outcome)) in outcomes.iter().enumerate() {
        for print in &outcome.prints {
            owners.entry(*print).or_default().push(index);
        }
    }
    // A piece that more than half have, and more than four, is everybody's.
    let common = (outcomes.len() / 2).max(4);
    let mut own = vec![0_usize; outcomes.len()];
    let mut shared: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for holders in owners.values().filter(|holders| holders.len() <= common) {
        for (position, first) in holders.iter().enumerate() {
            own[*first] += 1;
            for second in &holders[position + 1..] {
                *shared.entry((*first, *second)).or_default() += 1;
            }
        }
    }
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for ((first, second), pieces) in shared {
        let smaller = own[first].min(own[second]);
        if smaller < PIECES_MIN || pieces * 100 < smaller * ALIKE_PER_CENT {
            continue;
        }
        let share = pieces * 100 / smaller;
        for (of, other) in [(first, second), (second, first)] {
            let text = format!("{share} % of its work is in {} too", outcomes[other].0);
            found.entry(of).or_default().push(text);
        }
    }
    found
}

/// The table for a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut exercises: BTreeMap<&str, f64> = BTreeMap::new();
    for exercise in rows
        .iter()
        .filter_map(|row| row.outcome.report.as_ref())
        .flat_map(|report| &report.exercises)
    {
        exercises.insert(&exercise.exercise, exercise.max);
    }
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["hand-in".to_owned(), "student".to_owned(), "id".to_owned()];
    head.extend(exercises.keys().map(|name| (*name).to_owned()));
    head.push("total".to_owned());
    lines.push(head);
    for row in rows {
        let student = row.outcome.student.clone().unwrap_or_default();
        let mut line = vec![cell(&row.file), cell(&student.name), cell(&student.id)];
        let report = row.outcome.report.as_ref();
        for name in exercises.keys() {
            let own = report
                .and_then(|report| report.exercises.iter().find(|each| each.exercise == *name));
            line.push(own.map_or_else(|| "–".to_owned(), |own| number(own.points())));
        }
        line.push(report.map_or_else(
            || "–".to_owned(),
            |report| format!("{} of {}", number(report.points()), number(report.max())),
        ));
        lines.push(line);
    }
    let mut text = aligned(&lines);
    let looks: Vec<&Row> = rows.iter().filter(|row| !row.look.is_empty()).collect();
    if !looks.is_empty() {
        text.push_str("\nneeds a look:\n");
        for row in looks {
            for reason in &row.look {
                let _ = writeln!(text, "  {}: {}", cell(&row.file), reason.replace('\n', " "));
            }
        }
    }
    text
}

/// What stands in one cell: somebody else wrote it.
fn cell(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    shortened(&harmless(text).replace(['\n', '\t'], " "), CHARS_MAX)
}

/// Sets columns under each other; the first three are text, the others numbers.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if column < 3 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// All of it as one object.
pub fn to_json(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "file": row.file,
                "student": row.outcome.student,
                "points": row.outcome.report.as_ref().map(Report::points),
                "max": row.outcome.report.as_ref().map(Report::max),
                "report": row.outcome.report.as_ref().map(Report::to_json),
                "problem": row.outcome.problem,
                "look": row.look,
            })
        })
        .collect();
    json!({ "submissions": rows })
}

/// Names a student's own files: the id, or what the hand-in's file is called.
pub fn file_stem(row: &Row) -> String {
    const CHARS_MAX: usize = 60;
    let own = row.outcome.student.as_ref().map(|student| &student.id);
    let own = own.filter(|id| !id.trim().is_empty());
    let text = own.unwrap_or(&row.file);
    let text = text.strip_suffix(".halab").unwrap_or(text);
    let plain: String = text
        .chars()
        .take(CHARS_MAX)
        .map(|each| {
            if each.is_ascii_alphanumeric() || "-_".contains(each) {
                each
            } else {
                '_'
            }
        })
        .collect();
    if plain.is_empty() { "_".into() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    fn worked(prints: impl IntoIterator<Item = u64>) -> Outcome {
        Outcome {
            prints: prints.into_iter().collect(),
            ..Outcome::default()
        }
    }

    fn looks(outcomes: Vec<Outcome>) -> Vec<Vec<String>> {
        let named = outcomes
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| (format!("{index}.halab"), outcome));
        rows(named.collect())
            .into_iter()
            .map(|row| row.look)
            .collect()
    }

    #[test]
    fn a_copied_work_is_pointed_out_on_both_sides() {
        let found = looks(vec![worked(0..100), worked(20..100), worked(1000..1100)]);
        assert_eq!(found[0], ["100 % of its work is in 1.halab too"]);
        assert_eq!(found[1], ["100 % of its work is in 0.halab too"]);
        assert!(found[2].is_empty());
    }

    #[test]
    fn two_hand_ins_of_one_id_number_are_told_of_each_other() {
        let of = |id: &str| Outcome {
            student: Some(Student {
                name: "Ana".into(),
                id: id.into(),
            }),
            ..Outcome::default()
        };
        let found = looks(vec![of("42"), of("7"), of(" 42"), of(""), of(" ")]);
        assert_eq!(found[0], ["its ID number 42 is that of 2.halab too"]);
        assert_eq!(found[2], ["its ID number 42 is that of 0.halab too"]);
        assert!([1, 3, 4].iter().all(|index| found[*index].is_empty()));
    }

    #[test]
    fn points_lost_without_the_machines_memory_need_a_look() {
        let of = |disks_only| Outcome {
            report: Some(sample()),
            disks_only,
            ..Outcome::default()
        };
        let found = looks(vec![of(true), of(false)]);
        assert!(found[0][0].contains("without --running"), "{found:?}");
        assert!(found[1].is_empty(), "{found:?}");
    }

    #[test]
    fn a_machine_that_never_answered_needs_a_look() {
        let mut report = sample();
        let cause = format!("saisp-vm-2 {}", words("en").silent);
        report.exercises[0].checks[1].causes = vec![cause];
        let found = looks(vec![Outcome {
            report: Some(report),
            ..Outcome::default()
        }]);
        assert!(
            found[0][0].starts_with("01-lvs-dr: saisp-vm-2 does not answer"),
            "{found:?}"
        );
    }

    #[test]
    fn three_of_one_work_are_pointed_out_in_a_small_class() {
        let found = looks(vec![worked(0..100), worked(0..100), worked(0..100)]);
        assert!(found.iter().all(|look| look.len() == 2), "{found:?}");
    }

    #[test]
    fn what_everybody_installs_is_nobodys_work() {
        let everybody = 0..500;
        let of = |own: u64| worked(everybody.clone().chain(own * 1000..own * 1000 + 50));
        assert!(looks((1..=6).map(of).collect()).iter().all(Vec::is_empty));
        // Two that hardly did anything are alike and no copies.
        assert!(
            looks(vec![worked(0..10), worked(0..10)])
                .iter()
                .all(Vec::is_empty)
        );
    }

    #[test]
    fn the_table_names_everybody_and_who_needs_a_look() {
        let graded = Outcome {
            student: sample().student,
            report: Some(sample()),
            ..Outcome::default()
        };
        let broken = Outcome {
            problem: Some("it was tampered with\u{1b}[2J".into()),
            ..Outcome::default()
        };
        let text = table(&rows(vec![
            ("ana.halab".into(), graded),
            ("b.halab".into(), broken),
        ]));
        assert!(text.contains("2.5 of 7.5"), "{text}");
        assert!(
            text.contains("needs a look:\n  b.halab: it was tampered with"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_students_files_are_named_without_a_way_out_of_their_folder() {
        let of = |id: &str| Row {
            file: "../x.halab".into(),
            outcome: Outcome {
                student: Some(Student {
                    name: String::new(),
                    id: id.into(),
                }),
                ..Outcome::default()
            },
            look: vec![],
        };
        assert_eq!(file_stem(&of("321/CA ../etc")), "321_CA____etc");
        assert_eq!(file_stem(&of(" ")), "___x");
    }
}
