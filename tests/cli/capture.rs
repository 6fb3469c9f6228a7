//! `halab capture` without a lab: files it explains, and what it refuses.

use std::fs;

use crate::support::Lab;

#[track_caller]
fn refused(words: &[&str], expected: &[&str]) {
    let said = Lab::new("bad-capture").halab(words).failure(2);
    for part in expected {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
}

#[test]
fn an_unknown_interface_is_told_with_the_nearest() {
    refused(
        &["capture", "br1"],
        &[
            "no network and no card `br1`",
            "did you mean `br0`?",
            "saisp-vm-2:eth1",
        ],
    );
    refused(
        &["capture", "saisp-vm-2:eth2"],
        &["did you mean `saisp-vm-2:eth"],
    );
}

#[test]
fn a_lab_that_is_down_is_told() {
    refused(&["capture"], &["the lab is not up", "halab up"]);
}

#[test]
fn what_is_no_capture_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "no packets here\n").expect("written");
    let file = file.to_str().expect("a plain path");
    refused(&["capture", "-r", file], &["notes.txt", "expected pcapng"]);
    refused(&["capture", "-r", "/nowhere.pcapng"], &["/nowhere.pcapng"]);
}

#[test]
fn wrong_bounds_are_told() {
    refused(&["capture", "--count", "0"], &["--count"]);
    refused(&["capture", "--duration=-1"], &["--duration"]);
    refused(&["capture", "br0", "-r", "x"], &["cannot be used with"]);
}

/// Somebody else's file: one ARP question in tcpdump's own format, microseconds, big-endian.
#[test]
fn a_file_of_tcpdump_is_explained() {
    let mut bytes = vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4];
    bytes.extend([0; 8]);
    bytes.extend([0, 4, 0, 0, 0, 0, 0, 1]);
    bytes.extend(1_800_000_000_u32.to_be_bytes());
    bytes.extend([0, 0, 0, 7, 0, 0, 0, 42, 0, 0, 0, 42]);
    bytes.extend([0xff; 6]);
    bytes.extend([0x52, 0x54, 0, 0, 1, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend([0x52, 0x54, 0, 0, 1, 0, 10, 0, 0, 10]);
    bytes.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 77]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dump.pcap");
    fs::write(&file, bytes).expect("written");
    let file = file.to_str().expect("a plain path");
    let said = Lab::new("capture").halab(["capture", "-r", file]).success();
    assert!(
        said.contains("saisp-vm-1 asks who has 10.0.0.77: nobody answers"),
        "{said}"
    );
    let json = Lab::new("capture")
        .halab(["--json", "capture", "-r", file])
        .success();
    let last: serde_json::Value =
        serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["event"], &last["frames"]),
        (&"summary".into(), &1.into())
    );
}
