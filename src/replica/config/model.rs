//! What is configured, valid by construction.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::options::OptionSpec;
use super::tree::Word;
use crate::base::diagnostic::Origin;

/// All files together.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The main file, as it is shown.
    pub path: String,
    pub global: Option<Vec<Setting>>,
    pub common: Option<Sections>,
    pub resources: Vec<Resource>,
}

/// The parts of `common` and of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    Global,
    Options,
    Net,
    Disk,
    Syncer,
    Startup,
    Handlers,
}

impl Section {
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Options => "options",
            Self::Net => "net",
            Self::Disk => "disk",
            Self::Syncer => "syncer",
            Self::Startup => "startup",
            Self::Handlers => "handlers",
        }
    }

    /// Returns the section of this name, of those that stand in a resource.
    pub fn of_resource(name: &str) -> Option<Self> {
        [
            Self::Options,
            Self::Net,
            Self::Disk,
            Self::Syncer,
            Self::Startup,
            Self::Handlers,
        ]
        .into_iter()
        .find(|section| section.name() == name)
    }
}

/// One option as it was written, its value within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub spec: &'static OptionSpec,
    /// As it is printed; a switch's is `yes` or `no`.
    pub value: String,
    /// In the option's own unit, where it is a number; 1 and 0 of a switch.
    pub number: u64,
    pub origin: Origin,
}

/// A handler's command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Handler {
    pub name: Word,
    pub command: Word,
}

/// Options by section, in the order they were written; a section that stands there empty
/// is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    pub settings: BTreeMap<Section, Vec<Setting>>,
    pub handlers: Option<Vec<Handler>>,
}

impl Sections {
    /// Returns the setting that counts: the last one.
    pub fn get(&self, section: Section, name: &str) -> Option<&Setting> {
        let settings = self.settings.get(&section)?;
        settings
            .iter()
            .rev()
            .find(|setting| setting.spec.name == name)
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub name: Word,
    /// Where the word `resource` stands.
    pub origin: Origin,
    pub sections: Sections,
    pub hosts: Vec<Host>,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub kind: HostKind,
    pub address: SocketAddr,
    pub address_origin: Origin,
    /// Ascending; at least one.
    pub volumes: Vec<Volume>,
    /// Written as `volume N { … }`.
    pub explicit_volumes: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HostKind {
    /// These names, as `uname -n` gives them.
    On(Vec<Word>),
    /// Whichever node has the address.
    Floating,
}

impl Host {
    /// Whether this is the part of a node of that name, or with one of those addresses.
    pub fn is(&self, node: &Node) -> bool {
        match &self.kind {
            HostKind::On(names) => names.iter().any(|name| name.text == node.name),
            HostKind::Floating => node.addresses.contains(&self.address.ip()),
        }
    }
}

/// The node the tools run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// As `uname -n` gives it.
    pub name: String,
    pub addresses: Vec<std::net::IpAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub number: u16,
    /// `/dev/drbd…`, where it was written.
    pub device: Option<String>,
    pub minor: u32,
    pub disk: String,
    pub meta: Meta,
    pub settings: Vec<Setting>,
}

impl Volume {
    /// Returns the path of the device, which has a name even when none was written.
    pub fn device_path(&self) -> String {
        self.device
            .clone()
            .unwrap_or_else(|| format!("/dev/drbd{}", self.minor))
    }
}

/// Where the metadata lies, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meta {
    Internal,
    /// `flexible-meta-disk`, or `meta-disk` without an index.
    External(String),
    Indexed(String, u32),
}

/// One resource on the node the tools run on.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    pub configuration: &'a Configuration,
    pub resource: &'a Resource,
    pub own: &'a Host,
    /// None where the other host's part is missing.
    pub peer: Option<&'a Host>,
}

impl Configuration {
    /// Returns a resource's two sides as seen from a node; `None` when it is not the node's.
    pub fn local<'a>(&'a self, resource: &'a Resource, node: &Node) -> Option<Local<'a>> {
        let own = resource.hosts.iter().find(|host| host.is(node))?;
        let peer = resource.hosts.iter().find(|host| !std::ptr::eq(*host, own));
        Some(Local {
            configuration: self,
            resource,
            own,
            peer,
        })
    }

    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| resource.name.text == name)
    }

    pub fn global(&self, name: &str) -> Option<&Setting> {
        self.global
            .iter()
            .flatten()
            .rev()
            .find(|setting| setting.spec.name == name)
    }
}

impl<'a> Local<'a> {
    /// Returns the setting that counts: the resource's, else the common one.
    pub fn setting(&self, section: Section, name: &str) -> Option<&'a Setting> {
        self.resource.sections.get(section, name).or_else(|| {
            let common = self.configuration.common.as_ref()?;
            common.get(section, name)
        })
    }

    /// Returns a disk's setting, which a volume may have for itself.
    pub fn disk_setting(&self, volume: &'a Volume, name: &str) -> Option<&'a Setting> {
        let own = volume.settings.iter().rev();
        own.into_iter()
            .find(|setting| setting.spec.name == name)
            .or_else(|| self.setting(Section::Disk, name))
    }

    pub fn handler(&self, name: &str) -> Option<&'a Handler> {
        let common = self.configuration.common.as_ref();
        [Some(&self.resource.sections), common]
            .into_iter()
            .flatten()
            .filter_map(|sections| sections.handlers.as_ref())
            .find_map(|handlers| handlers.iter().find(|handler| handler.name.text == name))
    }
}
