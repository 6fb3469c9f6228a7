//! The agent as a process: frames in and out, what ends with it, what it refuses.

#[path = "support/programs.rs"]
mod programs;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use halab::base::frame::{self, Decoder};
use halab::base::wire::{FromAgent, PROTOCOL_VERSION, TaskReply, TaskRequest, ToAgent};
use programs::{GIVEN_PROGRAMS, program};
use serde_json::{Map, Value, json};

/// Far more than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that serves, killed when dropped.
struct Agent {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    decoder: Decoder,
}

impl Agent {
    fn start() -> Self {
        let mut child = Command::new(program("halab-agent"))
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let mut agent = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().expect("a pipe"),
            child,
            decoder: Decoder::default(),
        };
        let hello = agent.receive();
        assert!(matches!(hello, FromAgent::Hello { protocol, .. } if protocol == PROTOCOL_VERSION));
        agent
    }

    fn send(&mut self, message: &ToAgent, body: &[u8]) {
        let frame = frame::encode(message, body).expect("it fits");
        self.send_bytes(&frame);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).expect("the agent reads");
    }

    fn receive(&mut self) -> FromAgent {
        let mut buffer = [0; 4096];
        loop {
            if let Some((message, _)) = self.decoder.next_frame().expect("a frame") {
                return message;
            }
            let count = self.stdout.read(&mut buffer).expect("the agent's stdout");
            assert!(count > 0, "the agent ended");
            self.decoder.push(&buffer[..count]);
        }
    }

    fn reply(&mut self) -> TaskReply {
        match self.receive() {
            FromAgent::Done(reply) => reply,
            other @ FromAgent::Hello { .. } => panic!("not an answer: {other:?}"),
        }
    }

    fn end(mut self) -> ExitStatus {
        self.stdin = None;
        self.child.wait().expect("the agent ends")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "each call makes its own")]
fn run(id: u64, module: &str, args: Value) -> TaskRequest {
    TaskRequest {
        id,
        module: module.to_owned(),
        args: args.as_object().cloned().unwrap_or_default(),
        ..TaskRequest::default()
    }
}

fn shell(id: u64, line: &str) -> TaskRequest {
    run(id, "shell", json!({"cmd": line}))
}

fn is_failed(result: &Map<String, Value>) -> bool {
    result.get("failed") == Some(&json!(true))
}

/// Waits until a child wrote its process id, and returns it.
fn pid_in(path: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        assert!(
            Instant::now() < deadline,
            "no process id in {}",
            path.display()
        );
        std::thread::yield_now();
    }
}

/// Waits until a process is gone, or only its entry waits for its parent.
fn await_end(pid: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn answers_come_as_tasks_end_not_as_they_were_sent() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().expect("a directory");
    let gate = directory.path().join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", gate.display());
    agent.send(&ToAgent::Run(shell(1, &wait)), &[]);
    agent.send(&ToAgent::Run(run(2, "ping", json!({}))), &[]);
    assert_eq!(agent.reply().id, 2);
    std::fs::write(&gate, "").expect("the gate opens");
    let last = agent.reply();
    assert_eq!((last.id, &last.result["rc"]), (1, &json!(0)));
    assert!(agent.end().success());
}

#[test]
fn a_files_content_travels_beside_the_arguments() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().expect("a directory");
    let dest = directory.path().join("file");
    let args = json!({"dest": dest, "_content_in_body": true, "mode": "0600"});
    let content = [0, 159, 146, 150, b'\n'];
    for changed in [true, false] {
        agent.send(&ToAgent::Run(run(1, "copy", args.clone())), &content);
        assert_eq!(agent.reply().result["changed"], json!(changed));
    }
    assert_eq!(std::fs::read(&dest).expect("the file"), content);
}

#[test]
fn nothing_outlives_the_agent() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().expect("a directory");
    let note = directory.path().join("pid");
    // A grandchild: killing the child alone would leave it.
    let line = format!(
        "sh -c 'echo $$ > {}; exec sleep 1000'; true",
        note.display()
    );
    agent.send(&ToAgent::Run(shell(1, &line)), &[]);
    let pid = pid_in(&note);
    assert!(agent.end().success());
    await_end(&pid);
}

#[test]
fn a_cancelled_task_says_so_and_its_children_are_gone() {
    let mut agent = Agent::start();
    let directory = tempfile::tempdir().expect("a directory");
    let note = directory.path().join("pid");
    let line = format!("echo $$ > {}; sleep 1000", note.display());
    agent.send(&ToAgent::Run(shell(7, &line)), &[]);
    let pid = pid_in(&note);
    agent.send(&ToAgent::Cancel { id: 7 }, &[]);
    let reply = agent.reply();
    assert!(is_failed(&reply.result) && reply.id == 7, "{reply:?}");
    await_end(&pid);
}

#[test]
fn a_task_ends_at_its_deadline_also_when_it_only_waits() {
    let mut agent = Agent::start();
    for (module, args) in [
        ("shell", json!({"cmd": "sleep 1000"})),
        ("wait_for", json!({"path": "/nowhere/at/all"})),
    ] {
        let request = TaskRequest {
            timeout_ms: Some(50),
            ..run(1, module, args)
        };
        agent.send(&ToAgent::Run(request), &[]);
        let reply = agent.reply();
        assert_eq!(
            reply.result["msg"], "the task did not end within 0.05 s",
            "{module}"
        );
    }
}

#[test]
fn what_a_child_leaves_in_the_background_does_not_hold_the_task() {
    let mut agent = Agent::start();
    agent.send(&ToAgent::Run(shell(1, "sleep 1000 & echo $!")), &[]);
    let reply = agent.reply();
    let pid = reply.result["stdout"]
        .as_str()
        .expect("a process id")
        .to_owned();
    let _ = Command::new("kill").arg(pid).status();
    assert_eq!(reply.result["rc"], json!(0));
}

#[test]
fn hostile_frames_end_the_agent_with_an_error() {
    for bytes in [
        &[0xff; 8][..],
        &[0, 0, 0, 8, 0, 0, 0, 4, b'n', b'u', b'l', b'l'],
        &[0, 0, 0, 2, 0, 0],
        &[0, 0, 0, 4, 0, 0, 0, 9],
    ] {
        let mut agent = Agent::start();
        agent.send_bytes(bytes);
        let code = agent.end().code();
        assert_eq!(code, Some(2), "{bytes:?}");
    }
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let mut agent = Agent::start();
    agent.send_bytes(&[0, 0, 1]);
    assert_eq!(agent.end().code(), Some(2));
}

#[test]
fn bad_calls_are_failed_tasks_not_the_agents_end() {
    let mut agent = Agent::start();
    for (module, args, expected) in [
        ("nosuch", json!({}), "unknown module `nosuch`"),
        ("copy", json!({"dst": 1}), "`copy` has no argument `dst`"),
        ("debug", json!({}), "the agent does not run module `debug`"),
    ] {
        agent.send(&ToAgent::Run(run(1, module, args)), &[]);
        let reply = agent.reply();
        let msg = reply.result["msg"].as_str().unwrap_or_default();
        assert!(
            is_failed(&reply.result) && msg.starts_with(expected),
            "{msg}"
        );
    }
    assert!(agent.end().success());
}

#[test]
fn check_mode_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("there"), "a\n").expect("a file");
    let mut agent = Agent::start();
    for (module, args) in [
        ("copy", json!({"content": "b", "dest": path("there")})),
        ("copy", json!({"content": "b", "dest": path("new")})),
        ("file", json!({"path": path("new"), "state": "directory"})),
        ("file", json!({"path": path("there"), "mode": "0600"})),
        ("file", json!({"path": path("there"), "state": "absent"})),
        ("lineinfile", json!({"path": path("there"), "line": "b"})),
        (
            "blockinfile",
            json!({"path": path("new"), "block": "b", "create": true}),
        ),
        (
            "replace",
            json!({"path": path("there"), "regexp": "a", "replace": "b"}),
        ),
    ] {
        let request = TaskRequest {
            check: true,
            diff: true,
            ..run(1, module, args)
        };
        agent.send(&ToAgent::Run(request), &[]);
        let reply = agent.reply();
        assert_eq!(reply.result["changed"], json!(true), "{module}: {reply:?}");
        assert!(reply.result["diff"].is_array(), "{module}: {reply:?}");
    }
    assert_eq!(
        std::fs::read_to_string(path("there")).expect("the file"),
        "a\n"
    );
    assert!(!path("new").exists());
}

#[test]
fn two_backups_in_one_second_are_two_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let dest = directory.path().join("file");
    let mut agent = Agent::start();
    let mut kept = Vec::new();
    for content in ["a", "b", "c"] {
        let args = json!({"dest": dest, "content": content, "backup": true});
        agent.send(&ToAgent::Run(run(1, "copy", args)), &[]);
        let reply = agent.reply();
        kept.extend(
            reply
                .result
                .get("backup_file")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
    }
    let contents: Vec<String> = kept
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("the backup"))
        .collect();
    assert_eq!(contents, ["a", "b"]);
}

/// What a guest keeps of the agent, on its disk and in its memory.
const FILE_BYTES_MAX: u64 = 4 << 20;
const RESIDENT_KIB_MAX: u64 = 10 << 10;

#[test]
fn an_idle_agent_is_small_in_memory() {
    let mut agent = Agent::start();
    agent.send(&ToAgent::Run(run(1, "ping", json!({}))), &[]);
    agent.reply();
    let status = format!("/proc/{}/status", agent.child.id());
    let status = std::fs::read_to_string(&status).expect("the agent runs");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("the kernel counts what is resident");
    assert!(resident <= RESIDENT_KIB_MAX, "{resident} KiB are resident");
}

#[test]
fn an_installed_agent_is_small() {
    if std::env::var_os(GIVEN_PROGRAMS).is_none() {
        #[expect(
            clippy::print_stderr,
            reason = "the reason of a skip is for the reader of the run"
        )]
        {
            eprintln!("skipped: {GIVEN_PROGRAMS} names no folder with installed programs");
        }
        return;
    }
    let agent = program("halab-agent");
    let size = std::fs::metadata(&agent).expect("the agent is there").len();
    assert!(
        size <= FILE_BYTES_MAX,
        "{} has {size} bytes, {FILE_BYTES_MAX} are allowed: `nm -CS --size-sort` of a build \
         with CARGO_PROFILE_RELEASE_STRIP=false shows what is in it",
        agent.display()
    );
}
