//! Events to the text of Ansible's default callback, byte for byte.
//!
//! Two additions: a `debug` in a task tagged `show` is written for a reader (its lines as
//! they are, not as JSON), and problems are drawn with the place they were found in.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{diff, python};
use crate::base::diagnostic::Colour;
use crate::grade::outcome::CheckVerdict;
use crate::run::event::{
    Event, ExerciseStarted, HostLabel, HostResult, Outcome, Part, ResultShape, TaskId, TaskKind,
    TaskStarted,
};
use crate::run::recap::{Counts, ExerciseEnd, Recap, Summary};

/// A banner's width without the space before its stars, where there is no terminal, and
/// the least on one.
pub const COLUMNS_MIN: usize = 79;

/// A banner has stars even when its text fills the line.
const STARS_MIN: usize = 3;

/// From this many `-v` on, results keep their inner keys and are indented.
const VERBOSITY_WHOLE: u8 = 3;

#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub columns: usize,
    pub colour: Colour,
    pub verbosity: u8,
}

/// What to print, and where; each text ends with its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    Out(String),
    Err(String),
}

/// Makes text of events, one after the other.
#[derive(Debug)]
pub struct View {
    style: Style,
    /// The task whose banner stands last, and those begun, for their names.
    banner: Option<TaskId>,
    begun: Vec<TaskStarted>,
}

/// Tasks remembered by name: at their own pace, hosts are at so many tasks at once.
const BEGUN_MAX: usize = 256;

impl View {
    pub fn new(style: Style) -> Self {
        Self {
            style,
            banner: None,
            begun: Vec::new(),
        }
    }

    pub fn text(&mut self, event: &Event) -> Vec<Text> {
        match event {
            Event::ExerciseStarted(exercise) => vec![self.banner(&exercise_title(exercise))],
            Event::Summary(summary) => vec![self.summary(summary)],
            Event::PlayStarted { name } => vec![self.banner(&format!("PLAY [{name}]"))],
            Event::TaskStarted(task) => {
                let banner = self.task_banner(task);
                self.banner = Some(task.id);
                self.begun.push(task.clone());
                if self.begun.len() > BEGUN_MAX {
                    self.begun.remove(0);
                }
                vec![banner]
            }
            Event::ItemDone {
                task,
                result,
                label,
            } => self.item(*task, result, label),
            Event::HostDone { task, result } => self.host(*task, result),
            // How far it is stands in the progress line, where there is one.
            Event::Retrying { id, .. } if self.is_live(*id) => Vec::new(),
            Event::Retrying {
                host,
                task,
                retries_left,
                ..
            } => vec![self.line(
                Paint::Grey,
                &format!(
                    "FAILED - RETRYING: [{}]: {task} ({retries_left} retries left).",
                    host_text(host)
                ),
            )],
            Event::Included { file, hosts, label } => {
                let item = label.as_ref().map_or_else(String::new, |label| {
                    format!(" => (item={})", python::str(label))
                });
                let hosts = hosts.join(", ");
                vec![self.line(Paint::Cyan, &format!("included: {file} for {hosts}{item}"))]
            }
            Event::CheckDone(check) => {
                let (paint, word) = match check.verdict {
                    CheckVerdict::Passed => (Paint::Green, "passed"),
                    CheckVerdict::Failed => (Paint::Red, "failed"),
                    CheckVerdict::Skipped => (Paint::Cyan, "skipped"),
                };
                let line = format!(
                    "check {} {word}: {} of {}",
                    check.id, check.points, check.max
                );
                vec![self.line(paint, &line)]
            }
            Event::NoHostsLeft => vec![self.banner("NO MORE HOSTS LEFT")],
            Event::Problem(problem) => {
                vec![Text::Err(format!(
                    "{}\n",
                    problem.render(self.style.colour)
                ))]
            }
            Event::Warning(text) => vec![self.warning(text)],
            Event::Interrupted => vec![Text::Err("interrupted\n".to_owned())],
            Event::Finished(recap) => vec![self.recap(recap)],
        }
    }

    fn banner(&self, text: &str) -> Text {
        let width = text.chars().count();
        let stars = self.style.columns.saturating_sub(width).max(STARS_MIN);
        Text::Out(format!("\n{text} {}\n", "*".repeat(stars)))
    }

    fn task_banner(&self, task: &TaskStarted) -> Text {
        let prefix = match task.kind {
            TaskKind::Task => "TASK",
            TaskKind::Handler => "RUNNING HANDLER",
        };
        let Text::Out(banner) = self.banner(&format!("{prefix} [{}]", task.name)) else {
            unreachable!("banners go to stdout");
        };
        if self.style.verbosity < 2 {
            return Text::Out(banner);
        }
        let path = self.painted(Paint::Grey, &format!("task path: {}", task.place));
        Text::Out(format!("{banner}{path}\n"))
    }

    /// Whether a task waits for something that shows how far it is: it is tagged `live`.
    fn is_live(&self, task: TaskId) -> bool {
        let begun = self.begun.iter().find(|begun| begun.id == task);
        begun.is_some_and(|begun| begun.tags.iter().any(|tag| tag == "live"))
    }

    /// Repeats a task's banner when another one's stands last.
    fn catch_up(&mut self, task: TaskId) -> Vec<Text> {
        if self.banner == Some(task) {
            return Vec::new();
        }
        self.banner = Some(task);
        let begun = self.begun.iter().find(|begun| begun.id == task);
        begun
            .map(|begun| self.task_banner(begun))
            .into_iter()
            .collect()
    }

    fn item(&mut self, task: TaskId, result: &HostResult, label: &Value) -> Vec<Text> {
        let mut texts = self.catch_up(task);
        texts.extend(self.diffs(result));
        texts.extend(self.warnings(result));
        let host = host_text(&result.host);
        let label = python::str(label);
        let (paint, mut line) = match result.outcome {
            Outcome::Ok => (Paint::Green, format!("ok: [{host}] => (item={label})")),
            Outcome::Changed => (
                Paint::Yellow,
                format!("changed: [{host}] => (item={label})"),
            ),
            Outcome::Skipped => {
                let host = &result.host.host;
                (
                    Paint::Cyan,
                    format!("skipping: [{host}] => (item={label}) "),
                )
            }
            Outcome::Failed | Outcome::Unreachable => {
                let word = match result.outcome {
                    Outcome::Unreachable => "unreachable",
                    _ => "failed",
                };
                (Paint::Red, format!("{word}: [{host}] (item={label})"))
            }
        };
        if self.shows_result(result) {
            line.push_str(" => ");
            line.push_str(&self.dump(result));
        }
        texts.push(self.line(paint, &line));
        texts.extend(Self::readable(result));
        texts
    }

    fn host(&mut self, task: TaskId, result: &HostResult) -> Vec<Text> {
        let mut texts = self.catch_up(task);
        let is_silent = matches!(result.shape, ResultShape::Include | ResultShape::Silent);
        if is_silent && !result.outcome.is_bad() {
            if result.outcome == Outcome::Skipped {
                texts.push(self.line(Paint::Cyan, &format!("skipping: [{}]", result.host.host)));
            }
            return texts;
        }
        texts.extend(self.diffs(result));
        texts.extend(self.warnings(result));
        let host = host_text(&result.host);
        let (paint, mut line) = match result.outcome {
            Outcome::Ok => (Paint::Green, format!("ok: [{host}]")),
            Outcome::Changed => (Paint::Yellow, format!("changed: [{host}]")),
            Outcome::Skipped => (Paint::Cyan, format!("skipping: [{}]", result.host.host)),
            Outcome::Failed => (Paint::Red, format!("fatal: [{host}]: FAILED!")),
            Outcome::Unreachable => (Paint::BrightRed, format!("fatal: [{host}]: UNREACHABLE!")),
        };
        let told_by_items = result.shape == ResultShape::Looped
            && !matches!(result.outcome, Outcome::Skipped | Outcome::Unreachable);
        if !told_by_items {
            if self.shows_result(result) {
                line.push_str(" => ");
                line.push_str(&self.dump(result));
            }
            texts.push(self.line(paint, &line));
            texts.extend(Self::readable(result));
        }
        if result.ignored {
            texts.push(self.line(Paint::Cyan, "...ignoring"));
        }
        texts
    }

    fn shows_result(&self, result: &HostResult) -> bool {
        match result.outcome {
            Outcome::Failed | Outcome::Unreachable => true,
            Outcome::Skipped => self.style.verbosity > 0,
            Outcome::Ok | Outcome::Changed => match result.shape {
                ResultShape::Shown | ResultShape::Debug => true,
                ResultShape::Readable => false,
                _ => self.style.verbosity > 0,
            },
        }
    }

    fn dump(&self, result: &HostResult) -> String {
        let whole = self.style.verbosity >= VERBOSITY_WHOLE;
        let is_debug = matches!(result.shape, ResultShape::Debug | ResultShape::Readable);
        let mut shown: Map<String, Value> = (*result.result).clone();
        shown.retain(|key, _| match key.as_str() {
            "invocation" | "diff" => whole,
            "exception" | "warnings" | "deprecations" | "failed" | "skipped" => false,
            key => !key.starts_with("_ansible_"),
        });
        if is_debug {
            if shown.contains_key("msg") {
                shown.retain(|key, _| key == "msg");
            } else {
                shown.retain(|key, _| !HIDDEN_IN_DEBUG.contains(&key.as_str()));
            }
        }
        let shown_always = matches!(result.shape, ResultShape::Shown | ResultShape::Debug)
            && result.outcome != Outcome::Skipped;
        python::dumps_object(&shown, (shown_always || whole).then_some(4))
    }

    /// What a `show` task says, its lines as they are.
    fn readable(result: &HostResult) -> Option<Text> {
        if result.shape != ResultShape::Readable || result.outcome.is_bad() {
            return None;
        }
        let said = result.result.iter().find(|(key, _)| {
            !HIDDEN_IN_DEBUG.contains(&key.as_str()) && !key.starts_with("_ansible_")
        });
        let mut lines = String::new();
        for line in readable_lines(said?.1) {
            lines.push_str("    ");
            lines.push_str(&line);
            lines.push('\n');
        }
        Some(Text::Out(lines))
    }

    /// What changed; of a loop, each item has shown its own.
    fn diffs(&self, result: &HostResult) -> Option<Text> {
        if result.outcome != Outcome::Changed || result.shape == ResultShape::Looped {
            return None;
        }
        let shown = self.diff(result.result.get("diff")?);
        // It ends with an empty line already, unless it was prepared elsewhere.
        let closing = if shown.ends_with('\n') { "" } else { "\n" };
        (!shown.is_empty()).then(|| Text::Out(format!("{shown}{closing}")))
    }

    fn diff(&self, diff: &Value) -> String {
        let diffs = match diff {
            Value::Array(diffs) => diffs.iter().collect(),
            single => vec![single],
        };
        let mut shown = String::new();
        for diff in diffs {
            for (key, which) in [("dst_binary", "destination"), ("src_binary", "source")] {
                if diff.get(key).is_some() {
                    let _ = writeln!(shown, "diff skipped: {which} file appears to be binary");
                }
            }
            for (key, which) in [("dst_larger", "destination"), ("src_larger", "source")] {
                if let Some(size) = diff.get(key) {
                    let _ = writeln!(
                        shown,
                        "diff skipped: {which} file size is greater than {size}"
                    );
                }
            }
            if let (Some(before), Some(after)) = (diff.get("before"), diff.get("after")) {
                shown.push_str(&self.unified(diff, before, after));
            }
            if let Some(prepared) = diff.get("prepared").and_then(Value::as_str) {
                shown.push_str(prepared);
            }
        }
        shown
    }

    fn unified(&self, diff: &Value, before: &Value, after: &Value) -> String {
        let header = |word: &str| match diff.get(format!("{word}_header")) {
            Some(Value::String(header)) => format!("{word}: {header}"),
            _ => word.to_owned(),
        };
        let lines = diff::unified(
            &side(before),
            &side(after),
            &header("before"),
            &header("after"),
        );
        if lines.is_empty() {
            return String::new();
        }
        let painted = lines.iter().map(|line| {
            let paint = match line.as_bytes().first() {
                Some(b'+') => Paint::Green,
                Some(b'-') => Paint::Red,
                Some(b'@') => Paint::Cyan,
                _ => return line.clone(),
            };
            self.painted(paint, line)
        });
        painted.chain(["\n".to_owned()]).collect()
    }

    fn warnings(&self, result: &HostResult) -> Vec<Text> {
        let warnings = result.result.get("warnings").and_then(Value::as_array);
        warnings
            .into_iter()
            .flatten()
            .map(|warning| self.warning(&python::str(warning)))
            .collect()
    }

    fn warning(&self, text: &str) -> Text {
        let line = self.painted(Paint::Purple, &format!("[WARNING]: {text}"));
        Text::Err(format!("{line}\n"))
    }

    fn recap(&self, recap: &Recap) -> Text {
        let Text::Out(mut text) = self.banner("PLAY RECAP") else {
            unreachable!("banners go to stdout");
        };
        for (host, counts) in &recap.0 {
            text.push_str(&self.recap_line(host, *counts));
        }
        text.push('\n');
        Text::Out(text)
    }

    fn recap_line(&self, host: &str, counts: Counts) -> String {
        let host_paint = if counts.failed > 0 || counts.unreachable > 0 {
            Paint::Red
        } else if counts.changed > 0 {
            Paint::Yellow
        } else {
            Paint::Green
        };
        let host = match self.style.colour {
            Colour::Never => format!("{host:<26}"),
            // The width counts the colour's own characters, as in Ansible.
            Colour::Always => format!("{:<37}", self.painted(host_paint, host)),
        };
        let fields = [
            ("ok", counts.ok, Paint::Green),
            ("changed", counts.changed, Paint::Yellow),
            ("unreachable", counts.unreachable, Paint::BrightRed),
            ("failed", counts.failed, Paint::Red),
            ("skipped", counts.skipped, Paint::Cyan),
            ("rescued", counts.rescued, Paint::Green),
            ("ignored", counts.ignored, Paint::Purple),
        ];
        let fields = fields.map(|(word, count, paint)| {
            let field = format!("{word}={count:<4}");
            match count {
                0 => field,
                _ => self.painted(paint, &field),
            }
        });
        format!("{host} : {}\n", fields.join(" "))
    }

    fn summary(&self, summary: &Summary) -> Text {
        let width = |widest: usize, text: &str| widest.max(text.chars().count());
        let names = summary.lines.iter().map(|line| line.exercise.as_str());
        let name_width = names.fold("exercise".len(), width);
        let choices = summary.lines.iter().map(|line| line.choices.join(" "));
        let choice_width = choices.fold("choices".len(), |widest, text| width(widest, &text));
        let Text::Out(mut text) = self.banner("SUMMARY") else {
            unreachable!("banners go to stdout");
        };
        let _ = writeln!(
            text,
            "{:<name_width$}  {:<choice_width$}  {:<7}  {:>4} {:>7} {:>6}  {:>8}  {:>8}",
            "exercise", "choices", "end", "ok", "changed", "failed", "to begin", "took"
        );
        for line in &summary.lines {
            let (word, paint) = match line.end {
                ExerciseEnd::Done => ("done", Paint::Green),
                ExerciseEnd::Failed => ("FAILED", Paint::Red),
                ExerciseEnd::NotRun(_) => ("not run", Paint::Cyan),
            };
            let _ = write!(
                text,
                "{:<name_width$}  {:<choice_width$}  {}",
                line.exercise,
                line.choices.join(" "),
                self.painted(paint, &format!("{word:<7}")),
            );
            if let ExerciseEnd::NotRun(why) = &line.end {
                let _ = writeln!(text, "  {why}");
                continue;
            }
            let _ = writeln!(
                text,
                "  {:>4} {:>7} {:>6}  {:>8}  {:>8}",
                line.counts.ok,
                line.counts.changed,
                line.counts.failed + line.counts.unreachable,
                seconds(line.prepared),
                seconds(line.took),
            );
        }
        let _ = writeln!(text, "all of it took {}", seconds(summary.took));
        Text::Out(text)
    }

    fn line(&self, paint: Paint, text: &str) -> Text {
        Text::Out(format!("{}\n", self.painted(paint, text)))
    }

    /// Colours each line on its own, so that a pager cut in between shows no spill.
    fn painted(&self, paint: Paint, text: &str) -> String {
        match self.style.colour {
            Colour::Never => text.to_owned(),
            Colour::Always => {
                let code = paint.code();
                let lines: Vec<String> = text
                    .split('\n')
                    .map(|line| format!("\u{1b}[{code}m{line}\u{1b}[0m"))
                    .collect();
                lines.join("\n")
            }
        }
    }
}

/// Keys that every result has, which say nothing about a variable shown by `debug: var`.
const HIDDEN_IN_DEBUG: &[&str] = &[
    "changed",
    "failed",
    "skipped",
    "invocation",
    "skip_reason",
    "item",
    "ansible_loop_var",
    "ansible_index_var",
    "attempts",
];

#[derive(Clone, Copy, Debug)]
enum Paint {
    Green,
    Yellow,
    Red,
    BrightRed,
    Cyan,
    Purple,
    Grey,
}

impl Paint {
    /// Ansible's default colours.
    fn code(self) -> &'static str {
        match self {
            Self::Green => "0;32",
            Self::Yellow => "0;33",
            Self::Red => "0;31",
            Self::BrightRed => "1;31",
            Self::Cyan => "0;36",
            Self::Purple => "1;35",
            Self::Grey => "1;30",
        }
    }
}

impl Outcome {
    fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Unreachable)
    }
}

fn exercise_title(exercise: &ExerciseStarted) -> String {
    let what = match exercise.part {
        Part::Asked => "EXERCISE",
        Part::SetUp => "SETTING UP",
        Part::Undo => "UNDOING",
    };
    let choices = exercise.choices.join(" ");
    format!("{what} [{}, {choices}]", exercise.name)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn host_text(label: &HostLabel) -> String {
    match &label.delegate {
        Some(delegate) => format!("{} -> {delegate}", label.host),
        None => label.host.clone(),
    }
}

/// One side of a diff: text as it is, an object as indented JSON.
fn side(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        structure => format!("{}\n", python::dumps(structure, Some(4))),
    }
}

/// Text by its lines, a list by its items, anything else as indented JSON.
pub(super) fn readable_lines(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().flat_map(readable_lines).collect(),
        Value::Object(_) => python::dumps(value, Some(4))
            .lines()
            .map(str::to_owned)
            .collect(),
        scalar => vec![python::str(scalar)],
    }
}

/// Which hosts are still at which task, for the progress line.
#[derive(Debug, Default)]
pub struct Busy {
    task: String,
    hosts: Vec<String>,
    /// What the last attempt of a task that is repeated printed.
    said: Option<String>,
}

impl Busy {
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::TaskStarted(task) => {
                self.task.clone_from(&task.name);
                self.hosts.clone_from(&task.hosts);
                self.said = None;
            }
            Event::Retrying { said, .. } if said.is_some() => self.said.clone_from(said),
            Event::HostDone { result, .. } => {
                self.hosts.retain(|host| *host != result.host.host);
            }
            Event::PlayStarted { .. } | Event::Finished(_) | Event::Interrupted => {
                self.hosts.clear();
            }
            _ => {}
        }
    }

    /// Says who is waited for; nothing when nobody is.
    pub fn line(&self) -> Option<String> {
        /// Names shown; a class of thirty machines would not fit a line.
        const NAMES_MAX: usize = 4;
        if self.hosts.is_empty() {
            return None;
        }
        let mut names = self.hosts[..self.hosts.len().min(NAMES_MAX)].join(", ");
        if self.hosts.len() > NAMES_MAX {
            names = format!("{names} and {} more", self.hosts.len() - NAMES_MAX);
        }
        Some(match &self.said {
            Some(said) => format!("{} … {names}: {said}", self.task),
            None => format!("{} … {names}", self.task),
        })
    }

    /// How far what is waited for is, in per cent, where it says so.
    pub fn percent(&self) -> Option<f64> {
        percent(self.said.as_deref()?)
    }
}

/// Reads the first percentage of a line: `sync'ed: 42.2% (153940/261076)K`.
pub fn percent(line: &str) -> Option<f64> {
    let (before, _) = line.split_once('%')?;
    let digits = before
        .rfind(|each: char| !(each.is_ascii_digit() || each == '.'))
        .map_or(before, |at| &before[at + 1..]);
    digits
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::recap::Consequence;
    use serde_json::json;
    use std::sync::Arc;

    fn view(verbosity: u8) -> View {
        View::new(Style {
            columns: COLUMNS_MIN,
            colour: Colour::Never,
            verbosity,
        })
    }

    fn started(name: &str) -> Event {
        Event::TaskStarted(TaskStarted {
            id: TaskId(1),
            kind: TaskKind::Task,
            name: name.to_owned(),
            place: "site.yml:3".to_owned(),
            hosts: vec!["s1".to_owned(), "s2".to_owned()],
            tags: Vec::new(),
        })
    }

    fn result(outcome: Outcome, shape: ResultShape, value: Value) -> HostResult {
        let Value::Object(result) = value else {
            panic!("a result is an object");
        };
        HostResult {
            host: HostLabel::new("s1"),
            outcome,
            result: Arc::new(result),
            ignored: false,
            shape,
        }
    }

    fn done(outcome: Outcome, shape: ResultShape, value: Value) -> Event {
        Event::HostDone {
            task: TaskId(1),
            result: result(outcome, shape, value),
        }
    }

    fn out(view: &mut View, events: &[Event]) -> String {
        events
            .iter()
            .flat_map(|event| view.text(event))
            .map(|text| match text {
                Text::Out(text) | Text::Err(text) => text,
            })
            .collect()
    }

    #[test]
    fn banners_are_eighty_wide() {
        let mut view = view(0);
        let play = Event::PlayStarted {
            name: "Configure lab".to_owned(),
        };
        assert_eq!(
            out(&mut view, &[play, started("changed task")]),
            "\nPLAY [Configure lab] ***********************************************************\n\
             \nTASK [changed task] ************************************************************\n"
        );
        let long = out(&mut view, &[started(&"x".repeat(90))]);
        assert!(long.ends_with("x] ***\n"), "{long}");
    }

    #[test]
    fn results_are_lines_of_ansible() {
        let mut view = view(0);
        let text = out(
            &mut view,
            &[
                started("t"),
                done(
                    Outcome::Changed,
                    ResultShape::Plain,
                    json!({"changed": true}),
                ),
                done(
                    Outcome::Failed,
                    ResultShape::Plain,
                    json!({"msg": "non-zero return code", "changed": true, "invocation": {}, "rc": 1}),
                ),
                Event::ItemDone {
                    task: TaskId(1),
                    result: result(Outcome::Skipped, ResultShape::Plain, json!({})),
                    label: json!({"a": 1}),
                },
                done(
                    Outcome::Skipped,
                    ResultShape::Looped,
                    json!({"results": []}),
                ),
            ],
        );
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "changed: [s1]",
                "fatal: [s1]: FAILED! => {\"changed\": true, \"msg\": \"non-zero return code\", \"rc\": 1}",
                "skipping: [s1] => (item={'a': 1}) ",
                "skipping: [s1]",
            ]
        );
    }

    #[test]
    fn debug_shows_its_message_alone() {
        let mut view = view(0);
        let text = out(
            &mut view,
            &[
                started("t"),
                done(
                    Outcome::Ok,
                    ResultShape::Debug,
                    json!({"msg": ["a", "b"], "changed": false, "failed": false}),
                ),
                done(
                    Outcome::Ok,
                    ResultShape::Readable,
                    json!({"msg": ["a: 1", "b"], "changed": false}),
                ),
            ],
        );
        assert!(text.ends_with(
            "ok: [s1] => {\n    \"msg\": [\n        \"a\",\n        \"b\"\n    ]\n}\n\
             ok: [s1]\n    a: 1\n    b\n"
        ));
    }

    #[test]
    fn a_diff_stands_before_its_line() {
        let mut view = view(0);
        let text = out(
            &mut view,
            &[
                started("t"),
                done(
                    Outcome::Changed,
                    ResultShape::Plain,
                    json!({"changed": true, "diff": [
                        {"before": "a\n", "after": "b\n", "after_header": "/x"},
                        {"before": {"mode": "0644"}, "after": {"mode": "0600"}},
                    ]}),
                ),
            ],
        );
        let expected = "--- before\n+++ after: /x\n@@ -1 +1 @@\n-a\n+b\n\n\
                        --- before\n+++ after\n@@ -1,3 +1,3 @@\n {\n-    \"mode\": \"0644\"\n\
                        +    \"mode\": \"0600\"\n }\n\nchanged: [s1]\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn the_recap_keeps_its_trailing_spaces() {
        let mut recap = Recap::default();
        recap.count("d1", Outcome::Changed, Consequence::Plain);
        let text = out(&mut view(0), &[Event::Finished(recap)]);
        assert!(text.ends_with(
            "\nd1                         : ok=1    changed=1    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0   \n\n"
        ));
    }

    #[test]
    fn a_host_at_another_task_gets_its_banner_again() {
        let mut view = view(0);
        let mut second = started("two");
        if let Event::TaskStarted(task) = &mut second {
            task.id = TaskId(2);
        }
        let ok = done(Outcome::Ok, ResultShape::Plain, json!({}));
        let text = out(&mut view, &[started("one"), second, ok]);
        assert_eq!(text.matches("TASK [one]").count(), 2);
    }

    #[test]
    fn the_progress_line_names_who_is_waited_for() {
        let mut busy = Busy::default();
        busy.apply(&started("t"));
        assert_eq!(busy.line().as_deref(), Some("t … s1, s2"));
        busy.apply(&done(Outcome::Ok, ResultShape::Plain, json!({})));
        assert_eq!(busy.line().as_deref(), Some("t … s2"));
    }

    fn retrying(said: &str) -> Event {
        Event::Retrying {
            id: TaskId(1),
            host: HostLabel::new("s2"),
            task: "t".to_owned(),
            retries_left: 3,
            said: Some(said.to_owned()),
        }
    }

    #[test]
    fn a_live_task_shows_how_far_it_is_and_not_every_attempt() {
        let line = "[=======>............] sync'ed: 42.2% (153940/261076)K";
        let mut live = started("t");
        if let Event::TaskStarted(task) = &mut live {
            task.tags = vec!["setup".to_owned(), "live".to_owned()];
        }
        let text = out(&mut view(0), &[live.clone(), retrying(line)]);
        assert!(!text.contains("RETRYING"), "{text}");
        let text = out(&mut view(0), &[started("t"), retrying(line)]);
        assert!(
            text.contains("FAILED - RETRYING: [s2]: t (3 retries left)."),
            "{text}"
        );
        let mut busy = Busy::default();
        busy.apply(&live);
        assert_eq!(busy.percent(), None);
        busy.apply(&retrying(line));
        assert_eq!(busy.percent(), Some(42.2));
        assert!(busy.line().is_some_and(|shown| shown.ends_with(line)));
    }

    #[test]
    fn a_percentage_is_one_between_nought_and_a_hundred() {
        assert_eq!(percent("verified:  1.6% (1/2)K"), Some(1.6));
        assert_eq!(percent("100%"), Some(100.0));
        for none in ["no per cent", "%", "x% of it", "900%"] {
            assert_eq!(percent(none), None, "{none}");
        }
    }
}
