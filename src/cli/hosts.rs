//! The hosts of a run: the lab's machines, or whatever an inventory names.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::remote::agent_file::AgentFile;
use crate::remote::local::LocalHost;
use crate::remote::openssh::OpenSshHost;
use crate::remote::reconnect::AgentRemote;
use crate::remote::ssh_config::{self, HostKeyCheck, SshDestination};
use crate::remote::transport::Remote;
use crate::run::connection::Connection;
use crate::run::services::Hosts;

/// The lab's own hosts.
pub struct LabHosts {
    pub ssh_config: PathBuf,
    /// Command prefix that enters the lab's network as the client machine.
    pub enter: Vec<String>,
    pub machines: Vec<String>,
    pub client: String,
    /// Runs the modules that act on machines and cables.
    pub remote: Arc<dyn Remote>,
}

impl fmt::Debug for LabHosts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LabHosts")
            .field("machines", &self.machines)
            .finish_non_exhaustive()
    }
}

/// Every host of a run, connected when first needed.
#[derive(Debug)]
pub struct HostPool {
    agent: AgentFile,
    /// For ssh's control sockets and generated configuration.
    control_dir: PathBuf,
    lab: Option<LabHosts>,
    made: Mutex<HashMap<(String, Connection), Arc<dyn Remote>>>,
}

impl HostPool {
    pub fn new(agent: AgentFile, control_dir: &Path, lab: Option<LabHosts>) -> io::Result<Self> {
        fs::create_dir_all(control_dir)?;
        fs::set_permissions(control_dir, fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            agent,
            control_dir: control_dir.to_owned(),
            lab,
            made: Mutex::default(),
        })
    }

    fn make(&self, host: &str, connection: &Connection) -> Result<Arc<dyn Remote>, String> {
        if let Some(lab) = &self.lab {
            if lab.machines.iter().any(|machine| machine == host)
                && connection.kind.as_deref() != Some("local")
            {
                return Ok(self.ssh(host, lab.ssh_config.clone(), HostKeyCheck::Strict, false));
            }
            if lab.client == host {
                return Ok(self.local(host, lab.enter.clone()));
            }
        }
        let is_local = match connection.kind.as_deref() {
            Some(kind) => kind == "local",
            None => host == "localhost",
        };
        if is_local {
            let sudo = connection.privileged && !is_root();
            let enter = if sudo {
                vec!["sudo".to_owned(), "-n".to_owned()]
            } else {
                Vec::new()
            };
            return Ok(self.local(host, enter));
        }
        self.inventory_host(host, connection)
    }

    fn local(&self, host: &str, enter: Vec<String>) -> Arc<dyn Remote> {
        Arc::new(AgentRemote::new(LocalHost {
            name: host.to_owned(),
            enter,
            agent: self.agent.clone(),
        }))
    }

    fn ssh(
        &self,
        host: &str,
        config_file: PathBuf,
        check_host_key: HostKeyCheck,
        sudo: bool,
    ) -> Arc<dyn Remote> {
        Arc::new(AgentRemote::new(OpenSshHost {
            name: host.to_owned(),
            config_file,
            check_host_key,
            control_dir: self.control_dir.clone(),
            sudo,
            agent: self.agent.clone(),
        }))
    }

    fn inventory_host(
        &self,
        host: &str,
        connection: &Connection,
    ) -> Result<Arc<dyn Remote>, String> {
        let destination = SshDestination {
            alias: host.to_owned(),
            address: connection.address.clone(),
            port: connection.port,
            user: connection.user.clone(),
            key_file: connection.key_file.clone(),
            extra_args: connection.extra_args.clone(),
            check_host_key: ssh_config::host_key_check(&connection.extra_args),
        };
        let text = ssh_config::text(&destination)
            .map_err(|reason| format!("the connection of {host}: {reason}"))?;
        let path = self.control_dir.join(format!("{}.conf", file_name(host)));
        fs::write(&path, text)
            .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
        let is_root_login = connection
            .user
            .as_deref()
            .map_or_else(is_root, |user| user == "root");
        let sudo = connection.privileged && !is_root_login;
        Ok(self.ssh(host, path, destination.check_host_key, sudo))
    }
}

impl Hosts for HostPool {
    fn remote(&self, host: &str, connection: &Connection) -> Result<Arc<dyn Remote>, String> {
        let key = (host.to_owned(), connection.clone());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = made.get(&key) {
            return Ok(Arc::clone(remote));
        }
        let remote = self.make(host, connection)?;
        made.insert(key, Arc::clone(&remote));
        Ok(remote)
    }

    fn lab(&self) -> Option<Arc<dyn Remote>> {
        self.lab.as_ref().map(|lab| Arc::clone(&lab.remote))
    }

    fn reset(&self, host: &str) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(name, _), _| name != host);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A host's name as a file's: an inventory may call a host anything.
fn file_name(host: &str) -> String {
    host.chars()
        .map(|each| {
            if each.is_ascii_alphanumeric() || "-_.".contains(each) {
                each
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_cannot_leave_the_folder() {
        assert_eq!(file_name("../x y"), ".._x_y");
    }
}
