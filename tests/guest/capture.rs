//! Captures of the exercises, opened with tshark: what halab says of a frame is what tshark reads in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Finished, Lab, finish};
use crate::trial;

/// A capture that begins or ends takes a moment on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What tshark is asked of each frame, with all occurrences of a field: outer header first.
const FIELDS: [&str; 13] = [
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.proto",
    "tcp.srcport",
    "tcp.dstport",
    "arp.opcode",
    "arp.src.hw_mac",
    "arp.src.proto_ipv4",
    "frame.comment",
    "frame.interface_name",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tshark_reads_in_a_capture_what_halab_says", agreement),
        trial("a_capture_that_is_killed_leaves_a_whole_file", killed),
    ]
}

/// Whether tshark is there; where guests are required it has to be.
fn tshark_is_there() -> bool {
    let found = Command::new("tshark")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let required = std::env::var_os("HALAB_GUEST_TESTS").is_some_and(|value| value == "required");
    assert!(found || !required, "tshark is missing (package tshark)");
    if !found {
        #[expect(
            clippy::print_stderr,
            reason = "the reason of a skip is for the reader of the run"
        )]
        {
            eprintln!("skipped the comparison with tshark: it is not there (package tshark)");
        }
    }
    found
}

/// A capture that runs.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts one and waits until it watches.
    fn begin(lab: &Lab, file: PathBuf) -> Self {
        let mut command = lab.command(["capture", "br0", "-w"]);
        let child = command
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("halab starts");
        // The header is written once the sockets are open.
        wait_until("the capture's header", || {
            fs::metadata(&file).is_ok_and(|found| found.len() > 0)
        });
        Self { child, file }
    }

    /// Sends a signal and returns what was said.
    fn end(self, signal: Signal) -> (String, i32) {
        let pid = i32::try_from(self.child.id()).expect("a process number");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        let output = self.child.wait_with_output().expect("it was started");
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.code().unwrap_or(-1),
        )
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Frame number, then field, then what tshark reads in it.
type Read = BTreeMap<u64, BTreeMap<&'static str, Vec<String>>>;

fn read_with_tshark(file: &Path) -> Read {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file);
    command.args([
        "-T",
        "fields",
        "-E",
        "separator=/t",
        "-E",
        "aggregator=|",
        "-e",
        "frame.number",
    ]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let Finished {
        stdout,
        code,
        stderr,
        ..
    } = finish(command);
    assert_eq!(code, 0, "{stderr}");
    stdout
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            let number = columns.next().and_then(|number| number.parse().ok());
            let fields = FIELDS.into_iter().zip(columns).map(|(field, column)| {
                let values = column.split('|').filter(|value| !value.is_empty());
                (field, values.map(str::to_owned).collect())
            });
            (number.expect("a number"), fields.collect())
        })
        .collect()
}

fn agreement() {
    if !tshark_is_there() {
        return;
    }
    let lab = Lab::new("wire");
    lab.halab(["up"]).success();
    let folder = tempfile::tempdir().expect("a folder");
    for (exercise, method, hops) in [
        ("01-lvs-dr", "dr", 3),
        ("02-lvs-tun", "tun", 3),
        ("00-lvs-nat", "nat", 4),
    ] {
        lab.halab(["run", exercise, "--tags", "setup"]).success();
        let capture = Capture::begin(&lab, folder.path().join(exercise));
        let file = capture.file.clone();
        let pages = "ip neigh flush all; for page in 1 2 3 4; do curl -sfm 30 http://10.0.0.1/ || exit 1; done";
        lab.client(pages).success();
        let (said, code) = capture.end(Signal::SIGINT);
        assert_eq!(code, 0, "{said}");
        let label = format!("LVS-{}", method.to_uppercase());
        assert!(said.contains(&label), "{exercise}: no {label}:\n{said}");
        let read = read_with_tshark(&file);
        let events = explained(&lab, &file);
        compare(exercise, &events, &read, method, hops);
        names_are_in(&file);
        lab.halab(["run", exercise, "--tags", "teardown"]).success();
    }
}

/// What halab says of the file: one event a line.
fn explained(lab: &Lab, file: &Path) -> Vec<Value> {
    let file = file.to_str().expect("a plain path");
    let said = lab.halab(["--json", "capture", "-r", file]).success();
    said.lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect()
}

fn compare(exercise: &str, events: &[Value], read: &Read, method: &str, hops: usize) {
    let of_kind = |kind: &'static str| events.iter().filter(move |event| event["event"] == kind);
    let requests: Vec<&Value> = of_kind("request")
        .filter(|request| request["service"] == "10.0.0.1:80")
        .collect();
    assert_eq!(requests.len(), 4, "{exercise}: {events:#?}");
    for request in &requests {
        assert_eq!(request["method"], method, "{exercise}: {request:#}");
        assert_eq!(request["response"], "HTTP/1.1 200 OK");
        let found = request["hops"].as_array().expect("a list");
        assert_eq!(found.len(), hops, "{exercise}: {request:#}");
        for hop in found {
            compare_hop(hop, &read[&hop["frame"].as_u64().expect("a number")]);
        }
    }
    let answers: Vec<&Value> = of_kind("arp")
        .flat_map(|arp| {
            let answers = arp["answers"].as_array().expect("a list").iter();
            answers.map(move |answer| (arp, answer))
        })
        .map(|(arp, answer)| {
            let fields = &read[&answer["frame"].as_u64().expect("a number")];
            assert_eq!(fields["arp.src.hw_mac"], [text(&answer["mac"])]);
            assert_eq!(fields["arp.src.proto_ipv4"], [text(&arp["address"])]);
            assert!(fields["frame.comment"][0].contains("answers"), "{fields:?}");
            &arp["address"]
        })
        .collect();
    assert!(
        answers.iter().any(|address| *address == "10.0.0.1"),
        "{events:#?}"
    );
    let summary = of_kind("summary").next().expect("a summary");
    assert_eq!(summary["frames"], read.len() as u64);
}

fn compare_hop(hop: &Value, fields: &BTreeMap<&'static str, Vec<String>>) {
    let (source, source_port) = end(&hop["source"]);
    let (destination, destination_port) = end(&hop["destination"]);
    let (mut sources, mut destinations) = (vec![source], vec![destination]);
    let mut protocols = vec!["6".to_owned()];
    if let Some(inside) = hop.get("inside") {
        sources.insert(0, text(&inside["source"]));
        destinations.insert(0, text(&inside["destination"]));
        protocols.insert(0, "4".to_owned());
    }
    assert_eq!(fields["eth.src"], [text(&hop["from_mac"])], "{hop:#}");
    assert_eq!(fields["eth.dst"], [text(&hop["to_mac"])], "{hop:#}");
    assert_eq!(fields["ip.src"], sources, "{hop:#}");
    assert_eq!(fields["ip.dst"], destinations, "{hop:#}");
    assert_eq!(fields["ip.proto"], protocols, "{hop:#}");
    let ttl = fields["ip.ttl"].last().expect("a TTL");
    assert_eq!(*ttl, hop["ttl"].to_string(), "{hop:#}");
    assert_eq!(fields["tcp.srcport"], [source_port], "{hop:#}");
    assert_eq!(fields["tcp.dstport"], [destination_port], "{hop:#}");
    assert_eq!(fields["frame.interface_name"], ["br0"], "{hop:#}");
    assert!(fields["frame.comment"][0].contains("hop"), "{fields:?}");
}

fn end(value: &Value) -> (String, String) {
    let (address, port) = value
        .as_str()
        .and_then(|end| end.rsplit_once(':'))
        .expect("an address and a port");
    (address.to_owned(), port.to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// tshark takes the machines' names from the file.
fn names_are_in(file: &Path) {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-q", "-z", "hosts"]);
    let hosts = finish(command).success();
    for name in ["saisp-vm-1", "saisp-vm-2", "saisp-vm-3", "client"] {
        assert!(hosts.contains(name), "{name} is not in:\n{hosts}");
    }
}

fn killed() {
    let lab = Lab::new("killed");
    lab.halab(["up"]).success();
    let folder = tempfile::tempdir().expect("a folder");
    let capture = Capture::begin(&lab, folder.path().join("killed.pcapng"));
    let file = capture.file.clone();
    let header = fs::metadata(&file).expect("it is there").len();
    // Whether anything listens there is no matter: the question alone is traffic.
    lab.client("curl -sm 10 http://10.0.0.20/ >/dev/null; true")
        .success();
    wait_until("a frame in the file", || {
        fs::metadata(&file).is_ok_and(|found| found.len() > header)
    });
    capture.end(Signal::SIGKILL);
    let events = explained(&lab, &file);
    let frames = events.last().expect("a summary")["frames"].as_u64();
    assert!(frames.is_some_and(|frames| frames > 0), "{events:#?}");
    if tshark_is_there() {
        assert_eq!(
            read_with_tshark(&file).len() as u64,
            frames.expect("checked above")
        );
    }
}
