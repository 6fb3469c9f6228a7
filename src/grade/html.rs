//! The report as one HTML file that needs nothing else: style, pictures and all.
//!
//! Everything that came from a machine goes through the template's escaping; only our own
//! pictures, which escape for themselves, are let through as they are.

use minijinja::{AutoEscape, Environment, context};

use super::outcome::{CheckResult, CheckVerdict, harmless};
use super::picture::{self, Plan};
use super::report::{ExerciseReport, Report, number};
use super::words::words;

const TEMPLATE: &str = include_str!("report.html.j2");

/// Returns the page.
pub fn render(report: &Report, plan: &Plan) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report", TEMPLATE)?;
    let words = words(&report.language);
    let exercises: Vec<minijinja::Value> = report
        .exercises
        .iter()
        .map(|exercise| exercise_context(exercise, plan))
        .collect();
    environment.get_template("report")?.render(context! {
        language => report.language.clone(),
        words => context! {
            title => words.title, of => words.of, points => words.points_behind(report.max()), expected => words.expected,
            found => words.found, because => words.because, look => words.look, hint => words.hint,
            skipped => words.skipped, stopped => words.stopped, topology => words.topology,
            path => words.path, timeline => words.timeline, checks => words.checks,
            graded_in => words.graded_in,
        },
        student => report.student.as_ref().map(|student| context! {
            name => harmless(&student.name), id => harmless(&student.id),
        }),
        points => number(report.points()),
        max => number(report.max()),
        seconds => format!("{:.0}", report.seconds),
        date => date(report.graded_unix),
        exercises => exercises,
    })
}

fn exercise_context(exercise: &ExerciseReport, plan: &Plan) -> minijinja::Value {
    let checks: Vec<minijinja::Value> = exercise.checks.iter().map(check_context).collect();
    // Beside the picture: on a telephone only a part of that is in sight.
    let wrong: Vec<minijinja::Value> = picture::wrong_machines(exercise)
        .into_iter()
        .map(|(machine, checks)| {
            context! {
                machine => harmless(machine), checks => harmless(&checks.join("; ")),
            }
        })
        .collect();
    context! {
        exercise => exercise.exercise.clone(),
        title => exercise.title.clone(),
        points => number(exercise.points()),
        max => number(exercise.max),
        state => exercise.state.clone(),
        stopped => exercise.stopped.as_deref().map(harmless),
        topology => picture::topology(plan, exercise),
        wrong => wrong,
        way => picture::path(plan, exercise),
        timeline => picture::timeline(exercise),
        checks => checks,
    }
}

fn check_context(check: &CheckResult) -> minijinja::Value {
    let all = |texts: &[String]| texts.iter().map(|text| harmless(text)).collect::<Vec<_>>();
    let (mark, verdict) = match check.verdict {
        CheckVerdict::Passed => ("✓", "passed"),
        CheckVerdict::Failed => ("✗", "failed"),
        CheckVerdict::Skipped => ("–", "skipped"),
    };
    context! {
        mark => mark,
        verdict => verdict,
        name => harmless(&check.name),
        points => number(check.points),
        max => number(check.max),
        expected => harmless(&check.expected),
        found => harmless(&check.found),
        // By words: a line ends between two of them, never after the hyphen of an option.
        see => check.see.as_deref().map(|see| {
            harmless(see).split(' ').map(str::to_owned).collect::<Vec<_>>()
        }),
        causes => all(&check.causes),
        hints => all(&check.hints),
        because => all(&check.because).join("; "),
    }
}

/// A day as the calendar has it, from seconds since 1970 (UTC).
fn date(unix: u64) -> String {
    // Days since 0000-03-01, in eras of 400 years: after Howard Hinnant's `civil_from_days`.
    let days = unix / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        unix % 86_400 / 3600,
        unix % 3600 / 60
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn the_page_is_whole_and_nothing_in_it_is_a_machines_markup() {
        let page = render(&sample(), &Plan::default()).expect("a page");
        assert!(
            !page.contains("<b>none</b>") && !page.contains("<grupa>"),
            "{page}"
        );
        assert!(page.contains("&lt;b&gt;none&lt;&#x2f;b&gt;"), "{page}");
        for outside in ["src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        // What is wrong where is told in words too.
        assert!(page.contains("✗ saisp-vm-2:</span>"), "{page}");
    }

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_208_000), "2024-02-29 12:00 UTC");
    }
}
