//! Where heartbeat's files are. A root other than `/` holds a whole second node, which is
//! how several run on one machine in network namespaces.

use std::path::{Path, PathBuf};

/// All paths below one root.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(super) fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn ha_cf(&self) -> PathBuf {
        self.root.join("etc/ha.d/ha.cf")
    }

    pub(super) fn authkeys(&self) -> PathBuf {
        self.root.join("etc/ha.d/authkeys")
    }

    pub(super) fn haresources(&self) -> PathBuf {
        self.root.join("etc/ha.d/haresources")
    }

    /// Overrides the host's name as the node's.
    pub(super) fn node_info(&self) -> PathBuf {
        self.root.join("etc/ha.d/nodeinfo")
    }

    /// Where scripts are looked for, in this order.
    pub(super) fn script_folders(&self) -> [PathBuf; 2] {
        [
            self.root.join("etc/ha.d/resource.d"),
            self.root.join("etc/init.d"),
        ]
    }

    pub(super) fn state_folder(&self) -> PathBuf {
        self.root.join("var/lib/heartbeat")
    }

    pub(super) fn pid(&self) -> PathBuf {
        self.root.join("run/heartbeat.pid")
    }

    pub(super) fn control_socket(&self) -> PathBuf {
        self.root.join("run/heartbeat/halab.sock")
    }
}
