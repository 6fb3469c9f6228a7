//! Playbooks against hosts made of scripts: what a run says, in which order, and what it
//! asked of whom.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use halab::playbook;
use halab::playbook::files::{Memory, SourceLoader};
use halab::playbook::inventory::Inventory;
use halab::playbook::render::Renderer;
use halab::playbook::vars::{Known, Layer};
use halab::remote::scripted::{Answer, ScriptedRemote};
use halab::remote::transport::Remote;
use halab::report::reporter::Transcript;
use halab::run::connection::Connection;
use halab::run::dispatcher::{Dispatcher, Verdict, Wishes};
use halab::run::event::{Event, Outcome};
use halab::run::services::{Flags, Hosts, Services};
use serde_json::json;
use tokio::sync::watch;

/// Hosts by name, each a script.
#[derive(Debug, Default)]
struct Scripted {
    hosts: BTreeMap<String, Arc<ScriptedRemote>>,
}

impl Hosts for Scripted {
    fn remote(&self, host: &str, _: &Connection) -> Result<Arc<dyn Remote>, String> {
        let found = self.hosts.get(host).cloned();
        found
            .map(|remote| remote as Arc<dyn Remote>)
            .ok_or_else(|| format!("there is no host {host}"))
    }

    fn lab(&self) -> Option<Arc<dyn Remote>> {
        None
    }

    fn reset(&self, _: &str) {}
}

/// A run to be: a playbook and its hosts.
struct Setup {
    playbook: String,
    hosts: Scripted,
    flags: Flags,
    interrupted: bool,
}

/// What came of it.
struct Ran {
    verdict: Verdict,
    events: Vec<Event>,
    hosts: BTreeMap<String, Arc<ScriptedRemote>>,
}

impl Setup {
    /// Hosts `a`, `b` and `c` that answer everything with "nothing changed".
    fn new(tasks: &str) -> Self {
        Self {
            playbook: format!("- name: play\n  hosts: all\n  gather_facts: false\n{tasks}"),
            hosts: Scripted::default(),
            flags: Flags::default(),
            interrupted: false,
        }
        .host("a", ScriptedRemote::default())
        .host("b", ScriptedRemote::default())
        .host("c", ScriptedRemote::default())
    }

    fn host(mut self, name: &str, remote: ScriptedRemote) -> Self {
        self.hosts.hosts.insert(name.to_owned(), Arc::new(remote));
        self
    }

    async fn run(self) -> Ran {
        let loader: Arc<dyn SourceLoader> = Arc::new(Memory::new([
            ("site.yml", self.playbook.as_str()),
            ("again.yml", "- include_tasks: again.yml\n"),
        ]));
        let inventory = Inventory::load(&["a,b,c".to_owned()], &*loader).expect("three hosts");
        let extra = Layer::default();
        let paths = ["site.yml".to_owned()];
        let context = playbook::Context {
            inventory: &inventory,
            extra: &extra,
            limit: &[],
            tags: &[],
            skip_tags: &[],
            start_at_task: None,
        };
        let playbook = playbook::load(&paths, &*loader, &context).expect("a sound playbook");
        let known = Known::new(&inventory, extra, "", &*loader).expect("variables");
        let hosts = self.hosts.hosts.clone();
        let services = Arc::new(Services {
            renderer: Renderer::new(Arc::clone(&loader), 0),
            loader,
            hosts: Arc::new(self.hosts),
            flags: self.flags,
        });
        let mut reporter = Transcript::default();
        let (_sender, interrupt) = watch::channel(self.interrupted);
        let wishes = Wishes::default();
        let verdict = Dispatcher::new(services, inventory, known, wishes, &mut reporter, interrupt)
            .run(&playbook)
            .await;
        Ran {
            verdict,
            events: reporter.events,
            hosts,
        }
    }
}

impl Ran {
    /// One line an event, hosts of one task in the order of their names.
    fn transcript(&self) -> String {
        let mut text = String::new();
        let mut ends: Vec<String> = Vec::new();
        for event in &self.events {
            if let Event::HostDone { result, .. } = event {
                ends.push(format!("  {} {}\n", result.host.host, word(result.outcome)));
                continue;
            }
            ends.sort();
            text.extend(ends.drain(..));
            let _ = match event {
                Event::TaskStarted(task) => {
                    writeln!(text, "task {}: {}", task.name, task.hosts.join(" "))
                }
                Event::Retrying { retries_left, .. } => writeln!(text, "  retry {retries_left}"),
                Event::Problem(problem) => writeln!(text, "  problem {}", problem.message),
                Event::Interrupted => writeln!(text, "interrupted"),
                _ => Ok(()),
            };
        }
        text
    }

    fn messages(&self) -> Vec<String> {
        let results = self.events.iter().filter_map(|event| match event {
            Event::HostDone { result, .. } => result.result.get("msg"),
            _ => None,
        });
        results
            .filter_map(|msg| msg.as_str().map(str::to_owned))
            .collect()
    }

    fn asked(&self, host: &str) -> usize {
        self.hosts[host].asked().len()
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Changed => "changed",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
        Outcome::Unreachable => "unreachable",
    }
}

fn changed() -> Answer {
    Answer::Result(json!({"changed": true}))
}

#[tokio::test]
async fn a_host_lost_in_a_task_is_named_with_the_task_and_stops_nobody() {
    let ran = Setup::new("  tasks:\n  - {name: one, command: x}\n  - {name: two, command: y}\n")
        .host("b", ScriptedRemote::default().on("command", Answer::Lost))
        .run()
        .await;
    assert_eq!(
        ran.transcript(),
        "task one: a b c\n  a ok\n  b unreachable\n  c ok\ntask two: a c\n  a ok\n  c ok\n"
    );
    let message = &ran.messages()[0];
    assert!(message.contains("the task was `one`"), "{message}");
    assert_eq!(ran.verdict, Verdict::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_is_given_up_by_the_deadline() {
    let mut setup = Setup::new("  tasks:\n  - {name: one, command: x}\n  - {name: two, ping: }\n")
        .host("b", ScriptedRemote::default().on("command", Answer::Silent));
    setup.flags.deadline = Some(Duration::from_secs(30));
    let ran = setup.run().await;
    assert_eq!(
        ran.transcript(),
        "task one: a b c\n  a ok\n  b unreachable\n  c ok\ntask two: a c\n  a ok\n  c ok\n"
    );
    let message = &ran.messages()[0];
    assert!(message.contains("did not answer within 30 s"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_timeout_of_its_own_fails() {
    let ran = Setup::new("  tasks:\n  - {name: slow, command: x, timeout: 7}\n")
        .host("c", ScriptedRemote::default().on("command", Answer::Silent))
        .run()
        .await;
    assert_eq!(
        ran.transcript(),
        "task slow: a b c\n  a ok\n  b ok\n  c failed\n"
    );
    assert_eq!(ran.hosts["a"].asked()[0].0.timeout_ms, Some(7000));
}

#[tokio::test]
async fn a_file_that_includes_itself_without_end_is_a_mistake() {
    let setup = Setup::new("  tasks:\n  - include_tasks: again.yml\n");
    let transcript = setup.run().await.transcript();
    let problem = "problem `again.yml` is the 128th file included inside another";
    assert_eq!(transcript.matches(problem).count(), 1, "{transcript}");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_its_recap() {
    let mut setup = Setup::new("  tasks:\n  - {name: one, command: x}\n");
    setup.interrupted = true;
    let ran = setup.run().await;
    assert_eq!(ran.verdict, Verdict::Interrupted);
    assert!(matches!(ran.events.last(), Some(Event::Finished(_))));
}

#[tokio::test]
async fn handlers_run_once_for_those_that_changed() {
    let ran = Setup::new(
        "  tasks:\n  - {name: one, command: x, notify: tell}\n  - {name: two, command: y, notify: tell}\n  \
         handlers:\n  - {name: tell, ping: }\n",
    )
    .host("b", ScriptedRemote::default().on("command", changed()))
    .run()
    .await;
    assert_eq!(
        ran.transcript(),
        "task one: a b c\n  a ok\n  b changed\n  c ok\ntask two: a b c\n  a ok\n  b changed\n  c ok\n\
         task tell: b\n  b ok\n"
    );
}

#[tokio::test(start_paused = true)]
async fn until_asks_again_and_again() {
    let script = ScriptedRemote::default()
        .on("command", Answer::Result(json!({"rc": 1})))
        .on("command", Answer::Result(json!({"rc": 1})))
        .on("command", Answer::Result(json!({"rc": 0, "changed": true})));
    let ran = Setup::new(
        "  tasks:\n  - {name: one, command: x, register: r, until: r.rc == 0, retries: 5, \
         run_once: true}\n",
    )
    .host("a", script)
    .run()
    .await;
    assert_eq!(
        ran.transcript(),
        "task one: a\n  retry 5\n  retry 4\n  a changed\n"
    );
    assert_eq!((ran.asked("a"), ran.asked("b")), (3, 0));
}

#[tokio::test]
async fn one_mistake_is_shown_once_for_all_hosts() {
    let ran = Setup::new(
        "  tasks:\n  - {name: one, set_fact: {weight: {}}}\n  \
         - {name: two, debug: {msg: \"{{ weight.wieght }}\"}}\n",
    )
    .run()
    .await;
    let transcript = ran.transcript();
    assert_eq!(transcript.matches("problem").count(), 1, "{transcript}");
    assert_eq!(transcript.matches("failed").count(), 3, "{transcript}");
}

#[tokio::test]
async fn a_secret_is_in_no_event() {
    let told = Answer::Result(json!({"stdout": "hunter2", "failed": true, "msg": "hunter2"}));
    let ran = Setup::new(
        "  tasks:\n  - {name: one, command: \"echo {{ item }}\", no_log: true, loop: [hunter2]}\n",
    )
    .host("a", ScriptedRemote::default().on("command", told))
    .run()
    .await;
    assert!(!format!("{:?}", ran.events).contains("hunter2"));
    assert_eq!(ran.hosts["a"].asked()[0].0.args["cmd"], "echo hunter2");
}

#[tokio::test]
async fn a_request_says_how_the_task_is_to_be_run() {
    let mut setup = Setup::new(
        "  environment: {A: play}\n  tasks:\n  - {name: one, ping: , become: true, \
         become_user: lab, environment: {B: \"{{ inventory_hostname }}\"}}\n",
    );
    setup.flags.check = true;
    let ran = setup.run().await;
    let (request, _) = &ran.hosts["a"].asked()[0];
    assert!(request.check);
    assert_eq!(request.become_user.as_deref(), Some("lab"));
    assert_eq!(json!(request.environment), json!({"A": "play", "B": "a"}));
}

#[tokio::test]
async fn a_module_of_the_lab_needs_the_lab() {
    let ran =
        Setup::new("  tasks:\n  - {name: one, vm: {name: x, state: paused}, run_once: true}\n")
            .run()
            .await;
    let message = &ran.messages()[0];
    assert!(message.contains("inventory of its own"), "{message}");
}
