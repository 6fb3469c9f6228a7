//! The reports as a table for Moodle's grade import: a row a student, two columns an exercise.
//!
//! Moodle maps `ID number` to its users, an exercise's name to a grade item and the column after
//! it, called as Moodle's own export calls it, to that item's feedback; it takes no total of a
//! course, so `Total` is for the reader. What its importer does with a text decides how texts are
//! written here:
//!
//! - it takes a backslash before a quote as PHP's `fgetcsv` does, so that one could end or merge
//!   rows: a student's name must not move another's points;
//! - a row without an ID number goes to the student of the row above in older versions, and in
//!   newer ones to the one user who has none;
//! - feedback is shown as HTML.
//!
//! A spreadsheet takes a field that begins with `=`, `+`, `-` or `@` for a formula, so such a field
//! gets an apostrophe in front.

use std::collections::BTreeSet;

use super::outcome::{CheckVerdict, harmless};
use super::report::{ExerciseReport, Report, number};
use super::words::{Words, words};

/// Stands for an ID number that nobody gave. No user has it, so Moodle refuses the row by name.
const NO_ID: &str = "?";

/// Returns the table for any number of students.
pub fn render(reports: &[&Report]) -> Result<String, ::csv::Error> {
    let exercises: BTreeSet<&str> = reports
        .iter()
        .flat_map(|report| &report.exercises)
        .map(|exercise| exercise.exercise.as_str())
        .collect();
    let mut table = ::csv::WriterBuilder::new()
        .terminator(::csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let mut head = vec!["ID number".to_owned(), "Full name".to_owned()];
    head.extend(
        exercises
            .iter()
            .flat_map(|name| [(*name).to_owned(), format!("{name} (Feedback)")]),
    );
    head.push("Total".to_owned());
    table.write_record(&head)?;
    for report in reports {
        let student = report.student.clone().unwrap_or_default();
        let id = match student.id.trim() {
            // PHP takes both for empty.
            "" | "0" => NO_ID.to_owned(),
            id => field(id),
        };
        let mut row = vec![id, field(&student.name)];
        for name in &exercises {
            let own = report.exercises.iter().find(|each| each.exercise == *name);
            row.extend(own.map_or_else(
                || [String::new(), String::new()],
                |own| {
                    let told = feedback(own, words(&report.language));
                    [number(own.points()), field(&told)]
                },
            ));
        }
        row.push(number(report.points()));
        table.write_record(&row)?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| ::csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What was lost and why, a line a check.
fn feedback(exercise: &ExerciseReport, words: &Words) -> String {
    let lost = exercise.checks.iter().filter(|check| !check.passed());
    let lines = lost.map(|check| {
        let why = match check.verdict {
            CheckVerdict::Skipped => format!("{}: {}", words.skipped, check.because.join("; ")),
            _ => check.causes.first().unwrap_or(&check.found).clone(),
        };
        format!(
            "{} (-{}): {why}",
            check.name,
            number(check.max - check.points)
        )
    });
    let lines = exercise.stopped_text(words).into_iter().chain(lines);
    lines.collect::<Vec<_>>().join("\n").replace('<', "&lt;")
}

fn field(text: &str) -> String {
    let text = unescaping(&harmless(text));
    if text.trim_start().starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}

/// Keeps a backslash from standing before a quote, the field's last one too.
fn unescaping(text: &str) -> String {
    let mut kept = text.replace("\\\"", "\\ \"");
    if kept.ends_with('\\') {
        kept.push(' ');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::report::Student;
    use super::super::report::tests::sample;
    use super::*;

    fn of(id: &str, name: &str, exercises: &[&str]) -> Report {
        let mut report = sample();
        report.student = Some(Student {
            id: id.into(),
            name: name.into(),
        });
        let graded = report.exercises.remove(0);
        report.exercises = exercises
            .iter()
            .map(|exercise| ExerciseReport {
                exercise: (*exercise).into(),
                ..graded.clone()
            })
            .collect();
        report
    }

    fn rows(text: &str) -> Vec<Vec<String>> {
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(text.as_bytes());
        let fields = |row: ::csv::StringRecord| row.iter().map(str::to_owned).collect();
        reader
            .records()
            .map(|row| fields(row.expect("a row as long as the head")))
            .collect()
    }

    #[test]
    fn another_reader_finds_every_field_and_no_formula() {
        let report = sample();
        let rows = rows(&render(&[&report, &report]).expect("a table"));
        assert_eq!(
            rows[0],
            [
                "ID number",
                "Full name",
                "01-lvs-dr",
                "01-lvs-dr (Feedback)",
                "Total"
            ]
        );
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1][0], "'=cmd|'/C calc'!A0");
        assert_eq!(rows[1][1], "Ana O'Neill, <grupa> 1");
        assert_eq!((&*rows[1][2], &*rows[1][4]), ("2.5", "2.5"));
        assert!(rows[1][3].contains("no rule on saisp-vm-2"));
        // Nothing was tried: there is nothing that was found.
        assert!(
            rows[1][3].contains("(-2.5): not looked at, because this failed: The check"),
            "{}",
            rows[1][3]
        );
        // Shown as HTML.
        assert!(rows[1][3].contains("The check &lt;b>"));
    }

    #[test]
    fn who_gave_no_id_number_and_what_was_not_graded_are_told() {
        let nobody = of(" ", "", &["01-lvs-dr"]);
        let zero = of("0", "", &["01-lvs-dr"]);
        let both = of("7", "Șerban Țîrlea", &["01-lvs-dr", "02-lvs-tun"]);
        let rows = rows(&render(&[&both, &nobody, &zero]).expect("a table"));
        assert_eq!(
            rows[0][2..6].join("|"),
            "01-lvs-dr|01-lvs-dr (Feedback)|02-lvs-tun|02-lvs-tun (Feedback)"
        );
        assert_eq!((&*rows[1][1], &*rows[1][4]), ("Șerban Țîrlea", "2.5"));
        assert_eq!((&*rows[2][0], &*rows[2][4], &*rows[2][5]), ("?", "", ""));
    }

    /// Moodle reads a table, writes it with quotes around what PHP thinks needs them, and reads
    /// that, a backslash being an escape all the while.
    #[test]
    fn no_name_moves_anothers_points_where_a_backslash_escapes() {
        let names = [
            r"Ion\",
            r#"Ion "\" Pop"#,
            r#"\",20,20,"#,
            "a,\\\n\\",
            r#"\\"\\\"#,
            "Nuța\n\"Ana\", Îngăț",
        ];
        let reports: Vec<Report> = names
            .iter()
            .map(|name| of(&format!("SA-{}", name.len()), name, &["01-lvs-dr"]))
            .collect();
        let text = render(&reports.iter().collect::<Vec<_>>()).expect("a table");
        let mut again = ::csv::WriterBuilder::new()
            .quote_style(::csv::QuoteStyle::Always)
            .from_writer(Vec::new());
        for row in rows(&text) {
            again.write_record(row).expect("a row");
        }
        let again = again.into_inner().expect("a table");
        for table in [text.as_bytes(), &again] {
            let mut reader = ::csv::ReaderBuilder::new()
                .escape(Some(b'\\'))
                .from_reader(table);
            let rows: Vec<::csv::StringRecord> = reader
                .records()
                .collect::<Result<_, _>>()
                .expect("rows as long as the head");
            assert_eq!(rows.len(), names.len());
            for (row, name) in rows.iter().zip(names) {
                assert_eq!(row[0], format!("SA-{}", name.len()));
                assert_eq!((&row[2], &row[4]), ("2.5", "2.5"));
            }
        }
    }
}
