//! A run as one page that opens offline: what was seen, as text and pictures.
//!
//! ```text
//!  events with their times ─► chapters (an exercise each) ─► tasks, sights, failures ─► template
//!                                                            │
//!                                                            └ text a `show` task wrote, who answered
//!                                                              a check, how far a live task was
//! ```
//!
//! The page needs no colour: what is bad says so in words and a sign. Pictures are SVG within
//! the page, drawn in the text's own colour, so that they are read in light, dark and print.

use std::fmt::Write as _;
use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use serde_json::Value;

use super::view::{percent, readable_lines};
use crate::run::event::{
    Event, ExerciseStarted, HostResult, Outcome, Part, ResultShape, TaskId, TaskStarted,
};
use crate::run::recap::{ExerciseEnd, Recap, SummaryLine};

const TEMPLATE: &str = include_str!("../../templates/report/run.html.j2");

/// Tasks in the picture of where the time went; more would not be read.
const LONGEST_SHOWN: usize = 12;
/// Sights of one chapter; a loop over a class must not make a page that no browser opens.
const SIGHTS_MAX: usize = 200;
/// Lines of one sight or failure.
const LINES_MAX: usize = 400;

/// An event and when it came, from the beginning of the run.
pub type Timed = (Duration, Event);

/// What the page says of the run as a whole.
#[derive(Clone, Debug)]
pub struct Heading {
    pub title: String,
    /// Day and time, in words.
    pub began: String,
    pub took: Duration,
    pub failed: bool,
}

#[derive(Debug, Default, Serialize)]
struct Chapter {
    heading: String,
    title: String,
    choices: String,
    end: String,
    failed: bool,
    ok: u32,
    changed: u32,
    bad: u32,
    took: String,
    tasks: Vec<TaskRow>,
    sights: Vec<Sight>,
    failures: Vec<Failure>,
    gantt: String,
    #[serde(skip)]
    begun: Duration,
    #[serde(skip)]
    spans: Vec<Span>,
}

#[derive(Debug, Serialize)]
struct TaskRow {
    name: String,
    hosts: String,
    at: String,
    took: String,
}

/// Something to look at.
#[derive(Debug, Default, Serialize)]
struct Sight {
    task: String,
    host: String,
    svg: String,
    caption: String,
    lines: String,
}

#[derive(Debug, Serialize)]
struct Failure {
    task: String,
    host: String,
    text: String,
}

/// One task while it is read.
#[derive(Debug)]
struct Span {
    id: TaskId,
    name: String,
    begun: Duration,
    ended: Duration,
    hosts: Vec<String>,
    /// How far a live task was, by host: when, and per cent.
    progress: Vec<(String, Duration, f64)>,
}

/// Writes the page.
pub fn page(heading: &Heading, events: &[Timed]) -> Result<String, minijinja::Error> {
    let mut chapters = chapters(events);
    for chapter in &mut chapters {
        chapter.finish();
    }
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("run.html", TEMPLATE)?;
    environment
        .get_template("run.html")?
        .render(minijinja::context! {
            title => heading.title.clone(),
            began => heading.began.clone(),
            took => seconds(heading.took),
            failed => heading.failed,
            chapters => Serde(&chapters),
        })
}

fn chapters(events: &[Timed]) -> Vec<Chapter> {
    let mut chapters: Vec<Chapter> = Vec::new();
    for (at, event) in events {
        match event {
            Event::ExerciseStarted(exercise) => chapters.push(Chapter::of(exercise, *at)),
            Event::Summary(summary) => add_not_run(&mut chapters, &summary.lines),
            event => {
                if chapters.is_empty() {
                    chapters.push(Chapter {
                        heading: "The run".to_owned(),
                        end: "cut short".to_owned(),
                        begun: *at,
                        ..Chapter::default()
                    });
                }
                let last = chapters.len() - 1;
                chapters[last].read(*at, event);
            }
        }
    }
    chapters
}

/// Exercises that were left out have a line and nothing below it.
fn add_not_run(chapters: &mut Vec<Chapter>, lines: &[SummaryLine]) {
    for line in lines {
        if let ExerciseEnd::NotRun(why) = &line.end {
            chapters.push(Chapter {
                heading: line.exercise.clone(),
                title: format!("Not run: {why}"),
                choices: line.choices.join(" "),
                end: "not run".to_owned(),
                failed: true,
                ..Chapter::default()
            });
        }
    }
}

impl Chapter {
    fn of(exercise: &ExerciseStarted, begun: Duration) -> Self {
        let heading = match exercise.part {
            Part::Asked => exercise.name.clone(),
            Part::SetUp => format!("{}, set up", exercise.name),
            Part::Undo => format!("{}, undone", exercise.name),
        };
        Self {
            heading,
            title: exercise.title.clone(),
            choices: exercise.choices.join(" "),
            end: "cut short".to_owned(),
            begun,
            ..Self::default()
        }
    }

    fn read(&mut self, at: Duration, event: &Event) {
        match event {
            Event::TaskStarted(task) => self.start(at, task),
            Event::ItemDone { task, result, .. } => self.result(*task, at, result, false),
            Event::HostDone { task, result } => self.result(*task, at, result, true),
            Event::Retrying { id, host, said, .. } => {
                let percent = said.as_deref().and_then(percent);
                if let (Some(percent), Some(span)) = (percent, self.span(*id)) {
                    span.progress.push((host.host.clone(), at, percent));
                }
            }
            Event::Problem(problem) => self.failures.push(Failure {
                task: "A problem".to_owned(),
                host: "this machine".to_owned(),
                text: problem.render(crate::base::diagnostic::Colour::Never),
            }),
            Event::Finished(recap) => self.count(at, recap),
            _ => {}
        }
    }

    fn span(&mut self, id: TaskId) -> Option<&mut Span> {
        self.spans.iter_mut().rev().find(|span| span.id == id)
    }

    fn start(&mut self, at: Duration, task: &TaskStarted) {
        self.spans.push(Span {
            id: task.id,
            name: task.name.clone(),
            begun: at,
            ended: at,
            hosts: Vec::new(),
            progress: Vec::new(),
        });
    }

    fn result(&mut self, id: TaskId, at: Duration, result: &HostResult, whole: bool) {
        let host = match &result.host.delegate {
            Some(delegate) => format!("{} → {delegate}", result.host.host),
            None => result.host.host.clone(),
        };
        let Some(span) = self.span(id) else { return };
        span.ended = at;
        let name = span.name.clone();
        if whole {
            span.hosts
                .push(format!("{host} {}", outcome_word(result.outcome)));
            // A live task that has ended was at its end.
            if let Some((_, _, last)) = span.progress.last()
                && *last < 100.0
                && result.outcome == Outcome::Ok
            {
                span.progress.push((result.host.host.clone(), at, 100.0));
            }
        }
        let is_bad = matches!(result.outcome, Outcome::Failed | Outcome::Unreachable);
        if is_bad && whole && !result.ignored {
            let text = serde_json::to_string_pretty(&*result.result).unwrap_or_default();
            let text = shortened(text.lines());
            self.failures.push(Failure {
                task: name,
                host,
                text,
            });
            return;
        }
        if self.sights.len() < SIGHTS_MAX {
            self.sights.extend(sight(&name, &host, result));
        }
    }

    fn count(&mut self, at: Duration, recap: &Recap) {
        let total = recap.total();
        self.ok = total.ok;
        self.changed = total.changed;
        self.bad = total.failed + total.unreachable;
        self.failed = recap.has_failures();
        let word = if self.failed { "failed" } else { "done" };
        word.clone_into(&mut self.end);
        self.took = seconds(at.saturating_sub(self.begun));
    }

    /// Makes rows and pictures of what was read.
    fn finish(&mut self) {
        let curves: Vec<Sight> = self.spans.iter().filter_map(curve).collect();
        self.sights.splice(0..0, curves);
        self.gantt = gantt(&self.spans);
        self.tasks = self
            .spans
            .iter()
            .map(|span| TaskRow {
                name: span.name.clone(),
                hosts: span.hosts.join(", "),
                at: seconds(span.begun.saturating_sub(self.begun)),
                took: seconds(span.ended.saturating_sub(span.begun)),
            })
            .collect();
    }
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Changed => "changed",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
        Outcome::Unreachable => "unreachable",
    }
}

/// Writes a time in seconds since 1970 as a day and a time of day.
pub fn utc(unix: u64) -> String {
    let (days, rest) = (unix / 86_400, unix % 86_400);
    // Days are counted from 1 March 0000 in 400-year cycles, whose years end with February.
    let days = days + 719_468;
    let (cycle, of_cycle) = (days / 146_097, days % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + 400 * cycle + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3600,
        rest % 3600 / 60
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn shortened<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut lines: Vec<&str> = lines.take(LINES_MAX + 1).collect();
    if lines.len() > LINES_MAX {
        lines[LINES_MAX] = "…";
    }
    lines.join("\n")
}

/// What a result gives to look at: text written for a reader, or who answered a check.
fn sight(task: &str, host: &str, result: &HostResult) -> Option<Sight> {
    if result.shape == ResultShape::Readable && result.outcome != Outcome::Skipped {
        let said = result.result.get("msg").or_else(|| {
            let mut others = result.result.iter();
            others
                .find(|(key, _)| !matches!(key.as_str(), "changed" | "failed"))
                .map(|(_, value)| value)
        })?;
        let lines = readable_lines(said);
        return Some(Sight {
            task: task.to_owned(),
            host: host.to_owned(),
            lines: shortened(lines.iter().map(String::as_str)),
            ..Sight::default()
        });
    }
    let responses = result.result.get("responses")?.as_array()?;
    let who: Vec<&str> = responses.iter().map(who_answered).collect();
    (who.len() > 1).then(|| Sight {
        task: task.to_owned(),
        host: host.to_owned(),
        svg: answers(&who),
        caption: format!(
            "Requests in their order, and who answered: {}.",
            who.join(", ")
        ),
        lines: String::new(),
    })
}

fn who_answered(response: &Value) -> &str {
    response
        .get("id")
        .and_then(Value::as_str)
        .or_else(|| response.get("ending").and_then(Value::as_str))
        .unwrap_or("nobody")
}

/// One row a server, one column a request.
fn answers(who: &[&str]) -> String {
    const COLUMN: usize = 34;
    const ROW: usize = 28;
    const NAMES: usize = 110;
    let mut servers: Vec<&str> = who.to_vec();
    servers.sort_unstable();
    servers.dedup();
    let (width, height) = (NAMES + COLUMN * who.len() + 10, ROW * servers.len() + 30);
    let mut svg = svg_open(width, height, "who answered which request");
    for (row, server) in servers.iter().enumerate() {
        let y = ROW * row + 20;
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{}</text><line class=\"faint\" x1=\"{NAMES}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>",
            y + 4,
            escaped(server),
            width - 10
        );
        for (column, _) in who.iter().enumerate().filter(|(_, each)| each == &server) {
            let x = NAMES + COLUMN * column + COLUMN / 2;
            let _ = write!(
                svg,
                "<circle class=\"fill\" cx=\"{x}\" cy=\"{y}\" r=\"7\"/>"
            );
        }
    }
    for column in 0..who.len() {
        let x = NAMES + COLUMN * column + COLUMN / 2;
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            height - 6,
            column + 1
        );
    }
    svg + "</svg>"
}

/// How far a live task was over time, one line a host.
fn curve(span: &Span) -> Option<Sight> {
    const WIDTH: f64 = 560.0;
    const HEIGHT: f64 = 160.0;
    const LEFT: f64 = 45.0;
    const POINTS_MIN: usize = 3;
    if span.progress.len() < POINTS_MIN {
        return None;
    }
    let took = span.ended.saturating_sub(span.begun).as_secs_f64().max(0.1);
    let mut hosts: Vec<&str> = span
        .progress
        .iter()
        .map(|(host, ..)| host.as_str())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    let mut svg = svg_open(640, 210, "how far it was");
    for mark in [0.0, 50.0, 100.0] {
        let y = 10.0 + HEIGHT * (1.0 - mark / 100.0);
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{:.0}\">{mark:.0} %</text><line class=\"faint\" x1=\"{LEFT}\" y1=\"{y:.0}\" x2=\"{:.0}\" y2=\"{y:.0}\"/>",
            y + 4.0,
            LEFT + WIDTH
        );
    }
    for (index, host) in hosts.iter().enumerate() {
        let own = span.progress.iter().filter(|(name, ..)| name == host);
        let points: Vec<String> = own
            .map(|(_, at, percent)| {
                let x = LEFT + WIDTH * at.saturating_sub(span.begun).as_secs_f64() / took;
                format!("{x:.1},{:.1}", 10.0 + HEIGHT * (1.0 - percent / 100.0))
            })
            .collect();
        // Told apart by the stroke, for those who see no colour.
        let dashes = if index == 0 { "none" } else { "6 4" };
        let _ = write!(
            svg,
            "<polyline class=\"ink\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"195\">0 s</text><text x=\"{:.0}\" y=\"195\" text-anchor=\"end\">{took:.1} s</text></svg>",
        LEFT + WIDTH
    );
    let names = match hosts.as_slice() {
        [only] => (*only).to_owned(),
        hosts => format!("{} (solid), {} (dashed)", hosts[0], hosts[1..].join(", ")),
    };
    Some(Sight {
        task: span.name.clone(),
        svg,
        caption: format!("How far it was, as {names} told it."),
        ..Sight::default()
    })
}

/// The tasks that took longest, in their order, each a bar where it lay in the run.
fn gantt(spans: &[Span]) -> String {
    const ROW: usize = 22;
    const WIDTH: f64 = 620.0;
    let length = |span: &Span| span.ended.saturating_sub(span.begun);
    let mut shown: Vec<&Span> = spans.iter().collect();
    shown.sort_by_key(|span| std::cmp::Reverse(length(span)));
    shown.truncate(LONGEST_SHOWN);
    shown.sort_by_key(|span| span.begun);
    let begun = spans
        .iter()
        .map(|span| span.begun)
        .min()
        .unwrap_or_default();
    let ended = spans
        .iter()
        .map(|span| span.ended)
        .max()
        .unwrap_or_default();
    let whole = ended.saturating_sub(begun).as_secs_f64().max(0.1);
    let mut svg = svg_open(640, ROW * 2 * shown.len() + 10, "where the time went");
    for (row, span) in shown.iter().enumerate() {
        let y = ROW * 2 * row;
        let x = WIDTH * span.begun.saturating_sub(begun).as_secs_f64() / whole;
        let width = (WIDTH * length(span).as_secs_f64() / whole).max(2.0);
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\">{} — {}</text><rect class=\"fill\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"8\"/>",
            y + 16,
            escaped(&span.name),
            seconds(length(span)),
            y + 22
        );
    }
    svg + "</svg>"
}

fn svg_open(width: usize, height: usize, what: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{what}\">"
    )
}

/// What goes into a picture may be anything a machine said.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{HostLabel, TaskKind};
    use crate::run::recap::{Consequence, Counts, Summary};
    use serde_json::json;
    use std::sync::Arc;

    fn at(tenths: u64, event: Event) -> Timed {
        (Duration::from_millis(tenths * 100), event)
    }

    fn task(id: u64, name: &str) -> Event {
        Event::TaskStarted(TaskStarted {
            id: TaskId(id),
            kind: TaskKind::Task,
            name: name.to_owned(),
            place: "x.yml:1".to_owned(),
            hosts: vec!["s1".to_owned()],
            tags: vec!["live".to_owned()],
        })
    }

    fn done(id: u64, outcome: Outcome, shape: ResultShape, value: Value) -> Event {
        let Value::Object(result) = value else {
            panic!("a result is an object");
        };
        Event::HostDone {
            task: TaskId(id),
            result: HostResult {
                host: HostLabel::new("s1"),
                outcome,
                result: Arc::new(result),
                ignored: false,
                shape,
            },
        }
    }

    fn said(id: u64, percent: &str) -> Event {
        Event::Retrying {
            id: TaskId(id),
            host: HostLabel::new("s1"),
            task: "sync".to_owned(),
            retries_left: 1,
            said: Some(format!("[=>..] sync'ed: {percent}% (1/2)K")),
        }
    }

    fn page_of(events: &[Timed]) -> String {
        let heading = Heading {
            title: "halab run all".to_owned(),
            began: "Monday".to_owned(),
            took: Duration::from_secs(9),
            failed: false,
        };
        page(&heading, events).expect("the template is right")
    }

    #[test]
    fn what_was_shown_is_on_the_page_and_nothing_is_markup() {
        let text = page_of(&[
            at(0, task(1, "The <service>")),
            at(
                2,
                done(
                    1,
                    Outcome::Ok,
                    ResultShape::Readable,
                    json!({"msg": ["TCP  10.0.0.1:http wlc", "<script>alert(1)</script>"]}),
                ),
            ),
        ]);
        assert!(text.contains("The &lt;service&gt;"), "{text}");
        assert!(text.contains("TCP  10.0.0.1:http wlc"));
        assert!(!text.contains("<script"), "{text}");
        assert!(
            !text.contains("http://")
                || text.matches("http://").count() == text.matches("http://www.w3.org").count()
        );
    }

    #[test]
    fn a_live_task_becomes_a_curve_that_ends_at_a_hundred() {
        let text = page_of(&[
            at(0, task(1, "sync")),
            at(5, said(1, "10.0")),
            at(10, said(1, "50.0")),
            at(20, done(1, Outcome::Ok, ResultShape::Plain, json!({}))),
        ]);
        let (_, points) = text.split_once("points=\"").expect("a polyline");
        let (points, _) = points.split_once('"').expect("its end");
        assert_eq!(points, "185.0,154.0 325.0,90.0 605.0,10.0");
    }

    #[test]
    fn a_date_is_the_one_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_795_822_664), "2026-11-27 23:37 UTC");
    }

    #[test]
    fn who_answered_is_drawn_a_row_a_server() {
        let responses = json!({"responses": [{"id": "saisp-vm-2"}, {"id": "saisp-vm-3"}, {"id": "saisp-vm-2"}]});
        let text = page_of(&[
            at(0, task(1, "turns")),
            at(1, done(1, Outcome::Ok, ResultShape::Plain, responses)),
        ]);
        assert_eq!(text.matches("<circle").count(), 3);
        assert!(text.contains("saisp-vm-2, saisp-vm-3, saisp-vm-2"));
    }

    #[test]
    fn failures_stand_first_and_say_where() {
        let mut recap = Recap::default();
        recap.count("s1", Outcome::Failed, Consequence::Plain);
        let text = page_of(&[
            at(0, task(1, "a step")),
            at(
                1,
                done(
                    1,
                    Outcome::Failed,
                    ResultShape::Plain,
                    json!({"msg": "no such thing"}),
                ),
            ),
            at(2, Event::Finished(recap)),
        ]);
        assert!(text.contains("a step, on s1"), "{text}");
        assert!(text.contains("no such thing"));
    }

    #[test]
    fn exercises_are_chapters_and_those_left_out_say_why() {
        let exercise = |name: &str| {
            Event::ExerciseStarted(ExerciseStarted {
                name: name.to_owned(),
                title: "Title".to_owned(),
                choices: vec!["tools=agent".to_owned()],
                part: Part::Asked,
            })
        };
        let summary = Event::Summary(Summary {
            lines: vec![SummaryLine {
                exercise: "05".to_owned(),
                choices: Vec::new(),
                end: ExerciseEnd::NotRun("it builds on 04, which failed".to_owned()),
                counts: Counts::default(),
                prepared: Duration::ZERO,
                took: Duration::ZERO,
            }],
            took: Duration::ZERO,
        });
        let text = page_of(&[
            at(0, exercise("03")),
            at(1, Event::Finished(Recap::default())),
            at(1, exercise("04")),
            at(9, summary),
        ]);
        assert!(text.contains("href=\"#c3\""), "{text}");
        assert!(text.contains("it builds on 04, which failed"));
        assert!(text.contains("cut short"));
    }
}
