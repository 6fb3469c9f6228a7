//! Everything in `playbooks/` and `templates/` is right as far as that can be told without a host.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use halab::base::diagnostic::{Colour, render_all};
use halab::playbook::inventory::Inventory;
use halab::playbook::loader::Disk;
use halab::playbook::vars::Layer;
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
