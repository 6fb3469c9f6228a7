//! The reports as a table for Moodle's grade import: a row a student, a column an exercise.
//!
//! Moodle maps `ID number` to its users and the other columns to grade items; `Feedback` goes
//! with the total. A spreadsheet takes a field that begins with `=`, `+`, `-` or `@` for a
//! formula, so such a field gets an apostrophe in front.

use std::collections::BTreeMap;

use super::outcome::harmless;
use super::report::{Report, number};

/// Returns the table for any number of students.
pub fn render(reports: &[&Report]) -> Result<String, ::csv::Error> {
    let mut exercises: BTreeMap<&str, f64> = BTreeMap::new();
    for exercise in reports.iter().flat_map(|report| &report.exercises) {
        exercises.insert(&exercise.exercise, exercise.max);
    }
    let mut table = ::csv::WriterBuilder::new()
        .terminator(::csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let mut head = vec!["ID number".to_owned(), "Full name".to_owned()];
    head.extend(exercises.keys().map(|name| (*name).to_owned()));
    head.extend(["Total".to_owned(), "Feedback".to_owned()]);
    table.write_record(&head)?;
    for report in reports {
        let student = report.student.clone().unwrap_or_default();
        let mut row = vec![field(&student.id), field(&student.name)];
        for name in exercises.keys() {
            let own = report.exercises.iter().find(|each| each.exercise == *name);
            row.push(own.map(|own| number(own.points())).unwrap_or_default());
        }
        row.push(number(report.points()));
        row.push(field(&feedback(report)));
        table.write_record(&row)?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| ::csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What was lost and why, a line a check.
fn feedback(report: &Report) -> String {
    let lost = report.exercises.iter().flat_map(|exercise| {
        let checks = exercise.checks.iter().filter(|check| !check.passed());
        checks.map(move |check| {
            let why = check.causes.first().unwrap_or(&check.found);
            format!(
                "{}: {} (-{}): {why}",
                exercise.exercise,
                check.name,
                number(check.max - check.points)
            )
        })
    });
    lost.collect::<Vec<_>>().join("\n")
}

fn field(text: &str) -> String {
    let text = harmless(text);
    if text.trim_start().starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn another_reader_finds_every_field_and_no_formula() {
        let report = sample();
        let text = render(&[&report, &report]).expect("a table");
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let head: Vec<String> = reader
            .headers()
            .expect("a head")
            .iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            head,
            ["ID number", "Full name", "01-lvs-dr", "Total", "Feedback"]
        );
        let rows: Vec<::csv::StringRecord> =
            reader.records().collect::<Result<_, _>>().expect("rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(&rows[0][0], "'=cmd|'/C calc'!A0");
        assert_eq!(&rows[0][1], "Ana O'Neill, <grupa> 1");
        assert_eq!((&rows[0][2], &rows[0][3]), ("2.5", "2.5"));
        assert!(rows[0][4].contains("no rule on saisp-vm-2"));
    }
}
