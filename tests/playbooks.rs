//! Everything in `playbooks/` and `templates/` is right as far as that can be told without a host.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use halab::base::diagnostic::{Colour, render_all};
use halab::grade::header::Header;
use halab::playbook::inventory::Inventory;
use halab::playbook::loader::Disk;
use halab::playbook::vars::{self, Layer};
use halab::playbook::{Context, load};
use halab::vm::topology;

/// The repository's own files.
struct Repository;

impl topology::Files for Repository {
    fn text(&self, path: &Path) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn head(&self, path: &Path, bytes: usize) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        let file = fs::File::open(path).map_err(|error| error.to_string())?;
        file.take(bytes as u64)
            .read_to_end(&mut head)
            .map_err(|error| error.to_string())?;
        Ok(head)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_playbook_is_right() {
    let topology = topology::read(&root().join("vm/topology.yml"), &Repository)
        .unwrap_or_else(|problems| panic!("{}", render_all(&problems, Colour::Never)));
    let inventory = Inventory::from_topology(&topology);
    let extra = Layer::default();
    let context = Context {
        inventory: &inventory,
        extra: &extra,
        limit: &[],
        tags: &[],
        skip_tags: &[],
        start_at_task: None,
    };
    let mut wrong = Vec::new();
    for path in playbooks() {
        match load(&[path], &Disk, &context) {
            Ok(playbook) if playbook.warnings.is_empty() => {}
            Ok(playbook) => wrong.push(render_all(&playbook.warnings, Colour::Never)),
            Err(problems) => wrong.push(render_all(&problems, Colour::Never)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Files right below `playbooks/` and in `bench/`; the others are included by them.
fn playbooks() -> Vec<String> {
    let folders = [root().join("playbooks"), root().join("playbooks/bench")];
    let entries = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    let mut paths: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "yml"))
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no playbooks at all");
    paths
}

/// Grade files: sound, worth what they say, and with everything a student is told in both languages.
#[test]
fn every_grade_file_is_right_and_speaks_both_languages() {
    let topology = topology::read(&root().join("vm/topology.yml"), &Repository)
        .unwrap_or_else(|problems| panic!("{}", render_all(&problems, Colour::Never)));
    let inventory = Inventory::from_topology(&topology);
    let extra = vars::extra(&["graded_state=cloned".to_owned()], &Disk)
        .unwrap_or_else(|problems| panic!("{}", render_all(&problems, Colour::Never)));
    let context = Context {
        inventory: &inventory,
        extra: &extra,
        limit: &[],
        tags: &[],
        skip_tags: &[],
        start_at_task: None,
    };
    let paths = grade_files();
    assert!(!paths.is_empty(), "no grade files");
    for path in paths {
        let playbook = load(std::slice::from_ref(&path), &Disk, &context)
            .unwrap_or_else(|problems| panic!("{}", render_all(&problems, Colour::Never)));
        assert!(
            playbook.warnings.is_empty(),
            "{}",
            render_all(&playbook.warnings, Colour::Never)
        );
        for language in ["en", "ro"] {
            let header = Header::of(&playbook, language)
                .unwrap_or_else(|problem| panic!("{path}: {}", problem.render(Colour::Never)));
            assert!(
                path.contains(&header.exercise),
                "{path} grades another exercise"
            );
        }
        let checks = playbook.checks();
        assert!(checks.len() >= 8, "{path} has {} checks", checks.len());
        for check in checks {
            let id = &check.id;
            let (_, romanian) = check
                .translations
                .iter()
                .find(|(language, _)| language == "ro")
                .unwrap_or_else(|| panic!("{path}: {id} is not in Romanian"));
            assert!(
                check.wording.expected.is_some(),
                "{path}: {id} expects nothing"
            );
            assert!(check.see.is_some(), "{path}: {id} says not where to look");
            assert!(!check.wording.hints.is_empty(), "{path}: {id} has no hint");
            assert!(
                romanian.name.is_some() && romanian.expected.is_some(),
                "{path}: {id} is half translated"
            );
            assert_eq!(
                romanian.hints.len(),
                check.wording.hints.len(),
                "{path}: {id}, hints"
            );
            assert_eq!(
                romanian.causes.len(),
                check.causes.len(),
                "{path}: {id}, causes"
            );
        }
    }
}

fn grade_files() -> Vec<String> {
    let entries = fs::read_dir(root().join("playbooks/grade")).expect("the folder is there");
    let mut paths: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(|one: char| one.is_ascii_digit())
        })
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    paths.sort();
    paths
}
