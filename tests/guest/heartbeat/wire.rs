//! What a pair of ours sends, held against what a pair of heartbeat 3.0.6 sends in the same story:
//! the same kinds of messages, each with the same fields in the same order, each field of the same
//! form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use halab::capture::pcapng::{self, FileEnd, Piece};
use halab::heartbeat::agreement;
use halab::heartbeat::codec::peek;
use halab::heartbeat::message::{Message, Value};
use libtest_mimic::Trial;

use super::Software::{Agent, Package};
use super::{NODES, Pair, Software, is_long};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    // Two labs, one of them of the slow kind.
    if !is_long() {
        return Vec::new();
    }
    vec![trial(
        "heartbeat_sends_what_the_real_one_sends_field_by_field",
        both_pairs,
    )]
}

/// For each kind of message the forms that were seen: its fields in order, each with its form.
type Forms = BTreeMap<String, BTreeSet<String>>;

fn both_pairs() {
    let real = story("hbwirer", [Package, Package]);
    let ours = story("hbwireo", [Agent, Agent]);
    // Everything ours sends is something the real one sends, but for the one message of its own
    // that any other heartbeat ignores.
    for (kind, forms) in ours.iter().filter(|(kind, _)| *kind != agreement::KIND) {
        let known = real.get(kind).unwrap_or_else(|| {
            panic!(
                "the real one sends no {kind}; ours: {forms:?}; it sends {:?}",
                real.keys()
            )
        });
        assert!(
            forms.is_subset(known),
            "{kind}: ours {forms:#?}\nthe real one {known:#?}"
        );
    }
    // And the other way round, but for what only answers a loss, which chance decides on.
    for kind in real.keys().filter(|kind| !kind.contains("rexmit")) {
        assert!(
            ours.contains_key(kind),
            "ours never sent {kind}: {:?}",
            ours.keys()
        );
    }
}

/// Start, clean stop, return, stand-by, takeover, clean stop of both.
fn story(lab: &str, software: [Software; 2]) -> Forms {
    let pair = {
        let lab = crate::support::Lab::new(lab);
        lab.halab(["up"]).success();
        Pair { lab, software }
    };
    let capture = Capture::start(&pair);
    pair.play("pair.yml", &pair.software_var());
    let [first, second] = NODES;
    pair.both_see_both_active();
    pair.owner_is(first, &NODES);
    pair.on(first, "systemctl stop heartbeat").success();
    pair.owner_is(second, &NODES);
    // Its silence comes to its end too, so that both stories have a death in them.
    pair.eventually("the first node is dead", || {
        let said = pair.on(second, &format!("cl_status nodestatus {first}"));
        (said.stdout.trim() == "dead", said.to_string())
    });
    pair.on(first, "systemctl start heartbeat").success();
    pair.both_see_both_active();
    pair.owner_is(first, &NODES);
    pair.on(first, &pair.tool(first, "hb_standby")).success();
    pair.owner_is(second, &NODES);
    pair.on(first, &pair.tool(first, "hb_takeover")).success();
    pair.owner_is(first, &NODES);
    for node in [second, first] {
        pair.on(node, "systemctl stop heartbeat").success();
    }
    forms(&capture.packets())
}

struct Capture {
    child: Child,
    folder: tempfile::TempDir,
}

impl Capture {
    fn start(pair: &Pair) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("wire.pcapng");
        // On a node's own card, for the client's bridge is not told what two nodes say to each other.
        // It ends by itself if this test does not come to its end.
        let child = pair
            .lab
            .command(["capture", "saisp-vm-2:eth0", "--duration", "3600", "-w"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the capture starts");
        let capture = Self { child, folder };
        pair.eventually("the capture has begun", || (file.exists(), String::new()));
        capture
    }

    fn packets(mut self) -> Vec<Vec<u8>> {
        let pid = self.child.id().to_string();
        let ended = std::process::Command::new("kill").arg(&pid).status();
        assert!(ended.is_ok_and(|status| status.success()), "kill {pid}");
        self.child.wait().expect("it was started");
        payloads(&self.folder.path().join("wire.pcapng"))
    }
}

/// Reads heartbeat's UDP payloads out of a capture of Ethernet frames.
fn payloads(path: &Path) -> Vec<Vec<u8>> {
    const ETHERNET_IP_UDP: usize = 14 + 20 + 8;
    const IPV4: [u8; 2] = [0x08, 0x00];
    const UDP: u8 = 17;
    const PORT: [u8; 2] = 694_u16.to_be_bytes();
    let file = File::open(path).expect("the capture wrote its file");
    let mut payloads = Vec::new();
    let end = pcapng::read(file, &mut |piece| {
        let Piece::Frame { bytes, .. } = piece else {
            return;
        };
        let is_heartbeat = bytes.len() > ETHERNET_IP_UDP
            && bytes[12..14] == IPV4
            && bytes[23] == UDP
            && bytes[36..38] == PORT;
        if is_heartbeat {
            payloads.push(bytes[ETHERNET_IP_UDP..].to_vec());
        }
    });
    assert_eq!(end.expect("a capture"), FileEnd::Whole);
    payloads
}

fn forms(packets: &[Vec<u8>]) -> Forms {
    let mut forms = Forms::new();
    for packet in packets {
        let message = peek(packet)
            .unwrap_or_else(|| panic!("no message: {}", String::from_utf8_lossy(packet)));
        forms
            .entry(kind(&message))
            .or_default()
            .insert(form(&message));
    }
    assert!(!forms.is_empty(), "nothing was captured");
    forms
}

/// The type, and what else decides which fields there are.
fn kind(message: &Message) -> String {
    let mut kind = message.kind().to_owned();
    for name in ["st", "info", "result"] {
        if let Some(text) = message.get(name) {
            kind = format!("{kind} {name}={text}");
        }
    }
    kind
}

/// The fields in order, each with the form of its value.
fn form(message: &Message) -> String {
    let fields: Vec<String> = message
        .fields()
        .map(|(name, value)| format!("{name}:{}", form_of(name, value)))
        .collect();
    fields.join(" ")
}

fn form_of(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Binary(bytes) => return format!("{} bytes", bytes.len()),
        Value::Text(text) => text,
    };
    let is_hex = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match name {
        // Numbers: lower-case hex without leading zeros.
        "seq" | "hg" | "ts" | "dt" | "ackseq" if is_hex && !text.starts_with('0') => "hex".into(),
        // What says of itself which of the two nodes it is.
        "src" | "dest" | "node" => text.replace("saisp-vm-2", "N").replace("saisp-vm-3", "N"),
        "nodelist" => {
            let mut names: Vec<&str> = text.split(' ').collect();
            names.sort_unstable();
            names.join(" ")
        }
        "auth" => {
            let (index, digest) = text.split_once(' ').unwrap_or(("?", text));
            format!("{index}+{}", digest.len())
        }
        "ld" => format!("{} words", text.split_whitespace().count()),
        // Who holds what depends on the story's timing; the words are checked by the protocol.
        "rsc_hold" => "share".into(),
        _ => text.clone(),
    }
}
