//! `halab doctor` on whatever machine the tests run on, and a recipe with mistakes in it.

use std::fs;

use serde_json::Value;

use crate::support::Lab;

#[test]
fn each_prerequisite_is_found_or_explained() {
    let finished = Lab::new("doctor").halab(["doctor", "--json"]);
    assert!(matches!(finished.code, 0 | 1), "{finished}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("one JSON object");
    assert_eq!(report["ready"], Value::Bool(finished.code == 0));
    let findings = report["findings"].as_array().expect("a list");
    let names: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["name"].as_str())
        .collect();
    for name in ["QEMU", "KVM", "mmdebstrap", "namespaces", "/dev/net/tun"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for finding in findings {
        let words: &[&str] = match finding["state"].as_str() {
            Some("found") => &["detail"],
            _ => &["what", "why", "how"],
        };
        for word in words {
            let text = finding[*word].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{word} is missing in {finding}");
        }
    }
}

#[test]
fn every_mistake_in_a_recipe_is_shown_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("mylab");
    let folder = folder.to_str().expect("a plain path");
    let lab = Lab::new("recipe");
    lab.halab(["init", folder]).success();
    let recipe = format!("{folder}/vm/image.yml");
    fs::write(&recipe, "suite: trixie\nsise: 4 GiB\nfilesystem: zfs\n").expect("written");
    let said = lab.halab(["--dir", folder, "doctor"]).failure(2);
    for part in [
        "image.yml:2:1",
        "did you mean `size`?",
        "image.yml:3:13",
        "`packages:` is missing",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}
