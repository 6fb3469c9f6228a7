//! The three files of `/etc/ha.d`: texts to a checked configuration, all problems at once.
//!
//! [`ha_cf`] holds timers, media and nodes, [`authkeys`] the signatures, [`haresources`]
//! who owns what. Each reader reports every problem of its file with line and caret;
//! [`check`] adds what can only be seen across files. Whether an interface, a script or
//! a port is there is asked by the shell, at the places that the model remembers.

pub mod address;
pub mod authkeys;
pub mod ha_cf;
pub mod haresources;
pub mod lines;
pub mod value;

pub use address::Address;
pub use authkeys::AuthKeys;
pub use ha_cf::{AutoFailback, HaCf, Medium, MediumKind};
pub use haresources::{Group, HaResources, Resource};
pub use lines::Word;

use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Severity, Source};

/// The files as they were read, and what the host says of itself.
#[derive(Debug)]
pub struct Files {
    pub ha_cf: Arc<Source>,
    pub authkeys: Arc<Source>,
    /// Permission bits and owner of authkeys.
    pub authkeys_mode: u32,
    pub authkeys_owner: u32,
    pub haresources: Arc<Source>,
    /// `uname -n`, or what `/etc/ha.d/nodeinfo` says instead.
    pub host_name: String,
}

/// A configuration in which every name means something.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub ha_cf: HaCf,
    pub keys: AuthKeys,
    pub resources: HaResources,
    /// This node, as it is spelled on the wire.
    pub own_name: String,
}

/// What came of reading: a configuration and remarks, or problems (and remarks).
#[derive(Debug)]
pub struct Checked {
    pub config: Option<Config>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the three files together.
pub fn check(files: &Files) -> Checked {
    let mut diagnostics = Vec::new();
    let ha_cf = ha_cf::parse(&files.ha_cf, &mut diagnostics);
    let first = diagnostics.len();
    let keys = authkeys::parse(&files.authkeys, &mut diagnostics);
    authkeys::hide_secrets(&files.authkeys, &mut diagnostics[first..]);
    authkeys::check_permissions(
        &files.authkeys,
        files.authkeys_mode,
        files.authkeys_owner,
        &mut diagnostics,
    );
    let resources = haresources::parse(&files.haresources, &mut diagnostics);
    let own_name = files.host_name.to_lowercase();
    if let Some(ha_cf) = &ha_cf {
        check_own_name(ha_cf, files, &own_name, &mut diagnostics);
        check_owners(ha_cf, &resources, &mut diagnostics);
    }
    let broken = diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error);
    let config = match (broken, ha_cf, keys) {
        (false, Some(ha_cf), Some(keys)) => Some(Config {
            ha_cf,
            keys,
            resources,
            own_name,
        }),
        _ => None,
    };
    Checked {
        config,
        diagnostics,
    }
}

fn check_own_name(ha_cf: &HaCf, files: &Files, own_name: &str, diagnostics: &mut Vec<Diagnostic>) {
    if ha_cf.nodes.iter().any(|node| node.text == own_name) {
        return;
    }
    let names = ha_cf.nodes.iter().map(|node| node.text.as_str());
    let problem = Diagnostic::error(format!(
        "this host is `{own_name}`, which no `node` line names"
    ))
    .nearest(own_name, names)
    .help(format!(
        "a node's name is what `uname -n` prints there; here it prints `{}`",
        files.host_name
    ))
    .help("name both nodes in one `node` line, or change the host's name with `hostnamectl`");
    diagnostics.push(match ha_cf.nodes.first() {
        Some(node) => problem.at(&node.origin).label("the nodes are named here"),
        None => problem,
    });
}

/// A group whose owner is no node would never run anywhere.
fn check_owners(ha_cf: &HaCf, resources: &HaResources, diagnostics: &mut Vec<Diagnostic>) {
    for group in &resources.groups {
        if !ha_cf.nodes.iter().any(|node| node.text == group.owner.text) {
            let names = ha_cf.nodes.iter().map(|node| node.text.as_str());
            diagnostics.push(
                Diagnostic::error(format!(
                    "bad node name in haresources: `{}`",
                    group.owner.text
                ))
                .at(&group.owner.origin)
                .label("a line begins with the node that prefers the resources")
                .nearest(&group.owner.text, names)
                .help("ha.cf names the nodes of the cluster"),
            );
        }
    }
    if ha_cf.nodes.len() > 2 && !resources.groups.is_empty() {
        diagnostics.push(
            Diagnostic::error(format!(
                "haresources with {} nodes: it shares resources between two",
                ha_cf.nodes.len()
            ))
            .at(&ha_cf.nodes[2].origin)
            .label("the third node")
            .help("name two nodes, or leave haresources empty to watch membership only"),
        );
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::diagnostic::{Colour, render_all};

    pub(crate) fn files(ha_cf: &str, authkeys: &str, haresources: &str) -> Files {
        Files {
            ha_cf: Source::new("/etc/ha.d/ha.cf", ha_cf),
            authkeys: Source::new("/etc/ha.d/authkeys", authkeys),
            authkeys_mode: 0o600,
            authkeys_owner: 0,
            haresources: Source::new("/etc/ha.d/haresources", haresources),
            host_name: "saisp-vm-2".into(),
        }
    }

    const HA_CF: &str = "autojoin none\nucast eth0 10.0.0.30\nnode saisp-vm-2 saisp-vm-3\n";
    const KEYS: &str = "auth 1\n1 sha1 42ade27dad9045964fab10a395ffe4e0f726a80b\n";
    const RESOURCES: &str = "saisp-vm-2 10.0.0.50 apache2\n";

    fn complaints(files: &Files) -> String {
        render_all(&check(files).diagnostics, Colour::Never)
    }

    #[test]
    fn the_labs_files_are_right() {
        let checked = check(&files(HA_CF, KEYS, RESOURCES));
        let config = checked.config.expect("the text's files are valid");
        assert_eq!(config.own_name, "saisp-vm-2");
        assert_eq!(config.ha_cf.auto_failback, AutoFailback::Legacy);
        assert_eq!(config.resources.groups[0].key(), "10.0.0.50");
    }

    #[test]
    fn a_host_that_is_no_node_is_told_so() {
        let mut files = files(HA_CF, KEYS, RESOURCES);
        files.host_name = "saisp-vm-1".into();
        let said = complaints(&files);
        assert!(said.contains("this host is `saisp-vm-1`"), "{said}");
        assert!(said.contains("ha.cf:3:6"), "{said}");
    }

    #[test]
    fn an_owner_that_is_no_node_is_told_so_with_the_nearest() {
        let said = complaints(&files(HA_CF, KEYS, "saisp-vm2 10.0.0.50\n"));
        assert!(said.contains("bad node name in haresources"), "{said}");
        assert!(said.contains("did you mean `saisp-vm-2`?"), "{said}");
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let mut files = files(HA_CF, KEYS, RESOURCES);
        files.authkeys_mode = 0o644;
        let said = complaints(&files);
        assert!(said.contains("chmod 600 /etc/ha.d/authkeys"), "{said}");
    }

    #[test]
    fn all_files_are_complained_of_at_once() {
        let said = complaints(&files(
            "nod saisp-vm-2\nucast eth0 10.0.0.30\n",
            "1 sha1 x\n",
            "nobody 10.0.0.50\n",
        ));
        assert!(said.contains("did you mean `node`?"), "{said}");
        assert!(said.contains("no `auth` line"), "{said}");
    }
}
