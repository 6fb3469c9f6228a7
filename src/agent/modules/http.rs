//! `uri`, `get_url`, `http_check`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::error::ModuleError;
use super::super::files;
use super::super::lifeline::Lifeline;
use super::super::net::{FetchError, Fetched, fetch, fetch_url, resolve};
use super::super::work::Work;
use super::inspect::{glob, md5_hex, sha1_hex, sha256_hex};
use crate::task::args::Args;
use crate::task::http::{Request, Response, Url};
use crate::task::http_check::{self, Ending, Expectation, Try};
use crate::task::outcome::{Outcome, Refusal};
use crate::task::pattern::Pattern;
use crate::task::uri::{body, form_headers, status_is_expected};

/// Redirections followed before it is taken for a circle.
const REDIRECTIONS_MAX: usize = 10;

/// Most requests of one check at the same time; each has a thread.
const PARALLEL_MAX: usize = 64;

/// Most requests of one check.
const COUNT_MAX: usize = 10_000;

pub(super) fn uri(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    for (name, ends_if_there) in [("creates", true), ("removes", false)] {
        if let Some(path) = work.path(name)
            && glob(&path)?.is_empty() != ends_if_there
        {
            let state = if ends_if_there {
                "exists"
            } else {
                "does not exist"
            };
            let msg = format!("skipped, since '{}' {state}", path.display());
            return Ok(Outcome::changed(false).msg(msg));
        }
    }
    let started = Instant::now();
    let (url, response, redirected) = follow(work)?;
    let mut outcome =
        described(&url, &response, redirected).with("elapsed", started.elapsed().as_secs());
    if let Some(dest) = work.path("dest") {
        let dest = complete(&dest, &url);
        outcome.changed = files::read_if_there(&dest)?.as_deref() != Some(&response.body);
        if outcome.changed {
            files::replace(&dest, &response.body)?;
        }
        outcome.changed |=
            files::apply_attributes(work, &dest, &files::wanted(work, None)?)?.is_some();
        outcome = outcome.with("path", dest.display().to_string());
    }
    let expected = args.list("status_code");
    let is_expected = status_is_expected(&expected, response.status)?;
    if args.flag("return_content") || !is_expected {
        outcome = outcome.with("content", response.text());
    }
    if is_expected {
        return Ok(outcome);
    }
    let msg = format!(
        "Status code was {} and not [{}]: HTTP Error {}: {}",
        response.status,
        expected.join(", "),
        response.status,
        response.reason
    );
    Ok(outcome.failed_if(true).msg(msg))
}

fn described(url: &Url, response: &Response, redirected: bool) -> Outcome {
    let mut outcome = Outcome::changed(false)
        .msg(match response.header("content-length") {
            Some(length) => format!("OK ({length} bytes)"),
            None => "OK (unknown bytes)".to_owned(),
        })
        .with("status", response.status)
        .with("url", format!("http://{}{}", url.authority(), url.target))
        .with("redirected", redirected);
    for (name, value) in &response.headers {
        let name = name.to_ascii_lowercase().replace('-', "_");
        outcome = outcome.with(&name, value.as_str());
    }
    let kind = response.header("content-type").unwrap_or("");
    if kind.contains("json")
        && let Ok(value) = serde_json::from_slice::<Value>(&response.body)
    {
        outcome = outcome.with("json", value);
    }
    outcome
}

/// Sends the request and follows where it leads, as far as the task allows.
fn follow(work: &Work) -> Result<(Url, Response, bool), ModuleError> {
    let args = work.args();
    let method = args.word("method").to_ascii_uppercase();
    let content = body(args)?;
    let mut headers = form_headers(args);
    headers.extend(given_headers(args));
    let limit = Duration::from_secs(args.amount("timeout"));
    let mut url = Url::parse(args.word("url"))?;
    headers.extend(authorization(args, &url));
    let is_safe = matches!(method.as_str(), "GET" | "HEAD");
    let may_follow = match args.word("follow_redirects") {
        "all" | "yes" => true,
        "none" | "no" => false,
        _ => is_safe,
    };
    for redirections in 0..=REDIRECTIONS_MAX {
        work.lifeline.check()?;
        let request = Request {
            method: &method,
            url: &url,
            headers: headers.clone(),
            body: &content,
            keep_open: false,
        };
        let Fetched { response, .. } = fetch_url(&request, limit)?;
        match response.redirection() {
            Some(location) if may_follow => url = url.join(location)?,
            _ => return Ok((url, response, redirections > 0)),
        }
    }
    Err(Refusal::new(format!("more than {REDIRECTIONS_MAX} redirections")).into())
}

fn given_headers(args: Args<'_>) -> Vec<(String, String)> {
    let headers = args.dict("headers").into_iter().flatten();
    let mut headers: Vec<(String, String)> = headers
        .map(|(name, value)| match value {
            Value::String(text) => (name.clone(), text.clone()),
            other => (name.clone(), other.to_string()),
        })
        .collect();
    let names_itself = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
    if let (Some(name), false) = (args.text("http_agent"), names_itself) {
        headers.push(("User-Agent".to_owned(), name.to_owned()));
    }
    headers
}

fn authorization(args: Args<'_>, url: &Url) -> Option<(String, String)> {
    let given = args.text("url_username").map(|user| {
        let password = args.text("url_password").unwrap_or("");
        format!("{user}:{password}")
    });
    let credentials = given.or_else(|| url.credentials.clone())?;
    Some((
        "Authorization".to_owned(),
        format!("Basic {}", STANDARD.encode(credentials)),
    ))
}

/// Returns where a download lands: in a directory under the URL's last part.
fn complete(dest: &Path, url: &Url) -> PathBuf {
    if !dest.is_dir() {
        return dest.to_owned();
    }
    let path = url.target.split('?').next().unwrap_or("/");
    let name = path.rsplit('/').find(|part| !part.is_empty());
    dest.join(name.unwrap_or("index.html"))
}

pub(super) fn get_url(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let url = Url::parse(args.word("url"))?;
    let dest = complete(&work.required_path("dest"), &url);
    let existing = files::read_if_there(&dest)?;
    let wanted = Checksum::from_args(args)?;
    let shown = dest.display().to_string();
    let outcome = Outcome::changed(false)
        .with("url", args.word("url"))
        .with("dest", shown);
    let has_wanted = match (&existing, &wanted) {
        (Some(existing), Some(wanted)) => wanted.fits(existing),
        _ => false,
    };
    if has_wanted && !args.flag("force") {
        return attributed(work, outcome.msg("file already exists"), &dest);
    }
    if work.check && existing.is_none() {
        let mut outcome = outcome.msg("The file would be downloaded");
        outcome.changed = true;
        return Ok(outcome);
    }
    let mut headers = given_headers(args);
    headers.extend(authorization(args, &url));
    let limit = Duration::from_secs(args.amount("timeout"));
    let request = Request {
        method: "GET",
        url: &url,
        headers,
        body: &[],
        keep_open: false,
    };
    let Fetched { response, .. } = fetch_url(&request, limit)?;
    if response.status != 200 {
        let msg = format!(
            "Request failed: HTTP Error {}: {}",
            response.status, response.reason
        );
        return Err(Refusal::new(msg)
            .with("status_code", response.status)
            .into());
    }
    if let Some(wanted) = wanted.filter(|wanted| !wanted.fits(&response.body)) {
        let msg = format!(
            "The checksum for {} did not match {}",
            dest.display(),
            wanted.text
        );
        return Err(Refusal::new(msg).into());
    }
    let mut outcome = outcome
        .with("status_code", response.status)
        .with("checksum_src", sha1_hex(&response.body))
        .with("md5sum", md5_hex(&response.body));
    outcome.changed = existing.as_deref() != Some(&response.body);
    if outcome.changed && !work.check {
        if args.flag("backup") && existing.is_some() {
            let kept = files::backup(&dest)?.display().to_string();
            outcome = outcome.with("backup_file", kept);
        }
        files::replace(&dest, &response.body)?;
    }
    attributed(work, outcome, &dest)
}

fn attributed(work: &Work, mut outcome: Outcome, dest: &Path) -> Result<Outcome, ModuleError> {
    let wanted = files::wanted(work, None)?;
    outcome.changed |= files::apply_attributes(work, dest, &wanted)?.is_some();
    files::with_path_info(outcome, dest)
}

/// `sha256:…`, as `get_url` takes it.
struct Checksum {
    digest: fn(&[u8]) -> String,
    text: String,
}

impl Checksum {
    fn from_args(args: Args<'_>) -> Result<Option<Self>, Refusal> {
        let Some((algorithm, text)) = args.word("checksum").split_once(':') else {
            return Ok(None);
        };
        let digest: fn(&[u8]) -> String = match algorithm {
            "sha256" => sha256_hex,
            "sha1" => sha1_hex,
            "md5" => md5_hex,
            other => {
                let why = format!("`checksum` knows sha256, sha1 and md5, not `{other}`");
                return Err(Refusal::new(why));
            }
        };
        Ok(Some(Self {
            digest,
            text: text.trim().to_ascii_lowercase(),
        }))
    }

    fn fits(&self, bytes: &[u8]) -> bool {
        (self.digest)(bytes) == self.text
    }
}

pub(super) fn http_check(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let expectation = Expectation::from_args(args)?;
    let identify = args.text("identify").map(Pattern::new).transpose()?;
    let started = Instant::now();
    let tries = run_all(args, &work.lifeline)?;
    let seconds = started.elapsed().as_secs_f64();
    let outcome = http_check::outcome(&tries, identify.as_ref(), &expectation);
    Ok(outcome.with("elapsed_seconds", seconds))
}

/// Makes all requests, each over a connection of its own, so many at once.
pub(super) fn run_all(args: Args<'_>, lifeline: &Lifeline) -> Result<Vec<Try>, ModuleError> {
    let count = usize::try_from(args.amount("count"))
        .unwrap_or(usize::MAX)
        .clamp(1, COUNT_MAX);
    let parallel = usize::try_from(args.amount("parallel"))
        .unwrap_or(1)
        .clamp(1, PARALLEL_MAX);
    let method = args.word("method").to_ascii_uppercase();
    let keep_open = args.flag("keep_open") || args.seconds("hold_seconds").unwrap_or(0.0) > 0.0;
    let url = Url::parse(args.word("url"))?;
    let request = Request {
        method: &method,
        url: &url,
        headers: given_headers(args),
        body: &[],
        keep_open,
    }
    .encode()?;
    let address = SocketAddr::new(resolve(&url.host)?, url.port);
    let limit = Duration::from_secs_f64(args.seconds("timeout").unwrap_or(5.0));
    let next = AtomicUsize::new(0);
    // Connections that stay open, until all requests are through.
    let held = Mutex::new(Vec::new());
    let tries = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..parallel.min(count) {
            scope.spawn(|| {
                while lifeline.check().is_ok() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let (attempt, fetched) = attempt(number + 1, address, &request, &method, limit);
                    tries.lock().expect("no thread panics here").push(attempt);
                    if keep_open {
                        held.lock().expect("no thread panics here").extend(fetched);
                    }
                }
            });
        }
    });
    let hold = args.seconds("hold_seconds").unwrap_or(0.0);
    lifeline.wait(Duration::from_secs_f64(hold))?;
    drop(held);
    let mut tries = tries.into_inner().expect("no thread panics here");
    tries.sort_by_key(|attempt| attempt.number);
    Ok(tries)
}

fn attempt(
    number: usize,
    address: SocketAddr,
    request: &[u8],
    method: &str,
    limit: Duration,
) -> (Try, Option<Fetched>) {
    let started = Instant::now();
    let fetched = fetch(address, request, method, limit);
    let ending = match &fetched {
        Ok(fetched) => Ending::Answered {
            status: fetched.response.status,
            body: fetched.response.text(),
        },
        Err(FetchError::Connect { source, .. }) if is_refusal(source) => Ending::Refused,
        Err(FetchError::TimedOut { .. }) => Ending::TimedOut,
        Err(other) => Ending::Failed(other.to_string()),
    };
    let fetched = fetched.ok();
    let source_port = fetched.as_ref().and_then(|fetched| {
        let own = fetched.stream.local_addr().ok()?;
        Some(own.port())
    });
    let attempt = Try {
        number,
        ending,
        seconds: started.elapsed().as_secs_f64(),
        source_port,
    };
    (attempt, fetched)
}

/// A closed port answers so, and a director that has no server left.
fn is_refusal(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}
