//! `command` and `shell`: what is run, whether it is run at all, and what is answered.

use serde_json::Value;

use super::args::Args;
use super::outcome::{Outcome, Refusal};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// As `cmd` of the result: a list for `command`, the line for `shell`.
    pub shown: Value,
}

/// Splits a command line like a POSIX shell without expanding anything.
pub fn split(line: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(char) = rest.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                quoted(&mut rest, word, '\'').ok_or_else(|| unclosed(line))?;
            }
            '"' => {
                let word = word.get_or_insert_default();
                quoted(&mut rest, word, '"').ok_or_else(|| unclosed(line))?;
            }
            '\\' => {
                let escaped = rest.next().ok_or_else(|| {
                    Refusal::new(format!("nothing follows the last backslash of `{line}`"))
                })?;
                word.get_or_insert_default().push(escaped);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn unclosed(line: &str) -> Refusal {
    Refusal::new(format!("a quotation mark is not closed in `{line}`"))
}

/// Takes what stands before the closing mark; `None` when there is none.
fn quoted(rest: &mut std::str::Chars<'_>, word: &mut String, mark: char) -> Option<()> {
    loop {
        match rest.next()? {
            char if char == mark => return Some(()),
            '\\' if mark == '"' => match rest.next()? {
                escaped @ ('"' | '\\') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

/// Returns what `command` runs; `expand` fills in variables and home directories.
pub fn direct(args: Args<'_>, expand: impl Fn(&str) -> String) -> Result<Invocation, Refusal> {
    let words = match args.text("cmd") {
        Some(line) => split(line)?,
        None => args.list("argv").into_iter().map(str::to_owned).collect(),
    };
    let argv: Vec<String> = if args.flag("expand_argument_vars") {
        words.iter().map(|word| expand(word)).collect()
    } else {
        words.clone()
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(Refusal::new("no command given"));
    }
    Ok(Invocation {
        argv,
        shown: words.into(),
    })
}

/// Returns what `shell` runs.
pub fn through_shell(args: Args<'_>) -> Result<Invocation, Refusal> {
    let line = args.word("cmd");
    if line.trim().is_empty() {
        return Err(Refusal::new("no command given"));
    }
    let shell = args.text("executable").unwrap_or("/bin/sh");
    Ok(Invocation {
        argv: vec![shell.to_owned(), "-c".to_owned(), line.to_owned()],
        shown: line.into(),
    })
}

/// Whether the paths of `creates` and `removes` match anything; `None`: not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Markers {
    pub creates_exists: Option<bool>,
    pub removes_exists: Option<bool>,
}

/// Returns the result of a command that is not run: its work is done, or it is check mode.
pub fn without_running(
    args: Args<'_>,
    shown: &Value,
    markers: Markers,
    check: bool,
) -> Option<Outcome> {
    let verb = if check { "Would" } else { "Did" };
    if markers.creates_exists == Some(true) {
        let path = args.word("creates");
        let msg = format!("{verb} not run command since '{path}' exists");
        let stdout = format!("skipped, since {path} exists");
        return Some(finished(Outcome::changed(false).msg(msg), shown, &stdout));
    }
    if markers.removes_exists == Some(false) {
        let path = args.word("removes");
        let msg = format!("{verb} not run command since '{path}' does not exist");
        let stdout = format!("skipped, since {path} does not exist");
        return Some(finished(Outcome::changed(false).msg(msg), shown, &stdout));
    }
    if !check {
        return None;
    }
    let is_known_to_run = markers.creates_exists.is_some() || markers.removes_exists.is_some();
    let outcome =
        Outcome::changed(is_known_to_run).msg("Command would have run if not in check mode");
    let outcome = finished(outcome, shown, "");
    Some(if is_known_to_run {
        outcome
    } else {
        outcome.with("skipped", true)
    })
}

fn finished(outcome: Outcome, shown: &Value, stdout: &str) -> Outcome {
    let outcome = outcome
        .with("cmd", shown.clone())
        .with("rc", 0)
        .with("start", Value::Null)
        .with("end", Value::Null)
        .with("delta", Value::Null);
    with_streams(outcome, stdout, "")
}

/// What a command left behind.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    pub rc: i32,
    pub stdout: String,
    pub stderr: String,
    /// `2026-01-31 12:00:00.000000`
    pub start: String,
    pub end: String,
    /// `0:00:00.003000`
    pub delta: String,
}

/// Returns the result of a command that ran.
pub fn after_running(shown: Value, finished: &Finished, strip: bool) -> Outcome {
    let stripped = |text: &str| {
        if strip {
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            text.to_owned()
        }
    };
    let failed = finished.rc != 0;
    let outcome = Outcome::changed(true)
        .failed_if(failed)
        .msg(if failed { "non-zero return code" } else { "" })
        .with("cmd", shown)
        .with("rc", finished.rc)
        .with("start", finished.start.as_str())
        .with("end", finished.end.as_str())
        .with("delta", finished.delta.as_str());
    with_streams(
        outcome,
        &stripped(&finished.stdout),
        &stripped(&finished.stderr),
    )
}

/// Adds both streams, whole and as lines.
pub fn with_streams(outcome: Outcome, stdout: &str, stderr: &str) -> Outcome {
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    outcome
        .with("stdout", stdout)
        .with("stdout_lines", lines(stdout))
        .with("stderr", stderr)
        .with("stderr_lines", lines(stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn words_are_split_like_a_shell_does() {
        let words = split(r#"a 'b c' "d \" e" f\ g '' h"i"j"#).expect("valid");
        assert_eq!(words, ["a", "b c", "d \" e", "f g", "", "hij"]);
        split("a 'b").unwrap_err();
        split("a \\").unwrap_err();
    }

    #[test]
    fn what_is_created_already_is_not_run() {
        let map = json!({"cmd": "make x", "creates": "/x"});
        let args = Args(map.as_object().expect("a mapping"));
        let markers = Markers {
            creates_exists: Some(true),
            removes_exists: None,
        };
        let outcome =
            without_running(args, &json!(["make", "x"]), markers, false).expect("not run");
        assert_eq!(
            outcome.msg.as_deref(),
            Some("Did not run command since '/x' exists")
        );
        assert!(!outcome.changed);
    }

    #[test]
    fn check_mode_skips_unless_markers_tell() {
        let map = json!({"cmd": "x", "creates": "/x"});
        let args = Args(map.as_object().expect("a mapping"));
        let plain = without_running(args, &json!([]), Markers::default(), true).expect("not run");
        assert_eq!(
            (plain.changed, plain.values.get("skipped")),
            (false, Some(&json!(true)))
        );
        let markers = Markers {
            creates_exists: Some(false),
            removes_exists: None,
        };
        assert!(
            without_running(args, &json!([]), markers, true)
                .expect("not run")
                .changed
        );
        assert_eq!(without_running(args, &json!([]), markers, false), None);
    }

    #[test]
    fn a_failed_command_keeps_its_output() {
        let finished = Finished {
            rc: 3,
            stdout: "a\nb\n\n".to_owned(),
            ..Finished::default()
        };
        let outcome = after_running(json!("x"), &finished, true);
        assert!(outcome.failed);
        assert_eq!(outcome.values["stdout_lines"], json!(["a", "b"]));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[^']{0,8}", 0..5)) {
            let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            prop_assert_eq!(split(&line.join(" ")).expect("quoted"), words);
        }
    }
}
