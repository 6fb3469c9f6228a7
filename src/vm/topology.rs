//! The topology file: text to a checked [`Topology`], every problem of all its files at once.
//!
//! ```yaml
//! include: [common.yml]            # files beside this one; their networks and machines are added
//! networks:
//!   br0: {client: 10.0.0.254/24}   # a switch; the client is on it with this address
//!   direct:                        # a cable
//! machines:
//!   NAME:                          # the host name
//!     groups: [director]           # of the inventory
//!     memory: 384 MiB
//!     nics:
//!       eth0: {network: br0, address: 10.0.0.10/24}
//!       eth1: {network: direct}    # down until somebody configures it
//!     disks:
//!       sda: {root: true}                                          # the guest image
//!       sdb: {file: data.qcow2, size: 256 MiB, partitions: 1}      # an empty disk
//!       sdc: {image: /path/of/mine.qcow2}                          # an overlay on an image
//! client: {name: client, groups: [client]}
//! ```
//!
//! Files are read through [`Files`], so that everything here can be tested on texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::qcow2;
use super::spec::{Cidr, Client, Disk, DiskContent, MacAddress, Machine, Network, Nic, Topology};
use crate::base::diagnostic::{Diagnostic, Origin, Source};
use crate::base::units::ByteSize;
use crate::base::yaml::{self, Kind, Node};

/// Interface names in the kernel: 16 bytes with the ending zero.
const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// A label of a host name (RFC 1035).
const HOST_NAME_BYTES_MAX: usize = 63;
/// The address scheme has one byte for the machine; QEMU's slots and a host's memory end sooner.
const MACHINES_MAX: usize = 64;
/// Slots of the machine's bus that are kept for cards.
const NICS_MAX: usize = 8;
/// `sda` to `sdh`; one controller could take more, nobody needs them.
const DISKS_MAX: usize = 8;
/// The image's kernel and systemd do not get up with less.
const MEMORY_MIN: ByteSize = ByteSize::from_mib(192);
/// A typing slip (`384 GiB`) rather than a lab.
const MEMORY_MAX: ByteSize = ByteSize::from_mib(64 << 10);
/// Room for a partition table and a file system.
const DISK_MIN: ByteSize = ByteSize::from_mib(4);
/// An MBR's sectors are counted in 32 bits: below 2 TiB.
const DISK_MAX: ByteSize = ByteSize::from_mib(1 << 20);
/// Primary partitions of an MBR.
const PARTITIONS_MAX: i64 = 4;

/// Where the texts come from.
pub trait Files {
    /// Reads a whole text.
    fn text(&self, path: &Path) -> Result<String, String>;
    /// Reads a file's first bytes, at most `bytes` of them.
    fn head(&self, path: &Path, bytes: usize) -> Result<Vec<u8>, String>;
}

/// Reads and checks a topology.
pub fn read(path: &Path, files: &dyn Files) -> Result<Topology, Vec<Diagnostic>> {
    let mut reader = Reader {
        files,
        problems: Vec::new(),
        parts: Parts::default(),
    };
    reader.file(path, None, &mut Vec::new());
    let topology = reader.finish();
    if reader.problems.is_empty() {
        Ok(topology.expect("without a problem there is a topology"))
    } else {
        Err(reader.problems)
    }
}

/// What was found, in the order of the files.
#[derive(Debug, Default)]
struct Parts {
    networks: Vec<(Network, Origin)>,
    machines: Vec<(Machine, Places)>,
    client: Option<(Client, Origin)>,
    /// Who has an address: who, where it was written.
    addresses: BTreeMap<std::net::Ipv4Addr, (String, Origin)>,
    /// Which machine has a disk's file.
    disk_files: BTreeMap<String, Origin>,
}

/// Where parts of a machine were written, for checks that need the whole topology.
#[derive(Debug)]
struct Places {
    machine: Origin,
    /// For each NIC: its network's name, its address.
    nics: Vec<(Origin, Option<Origin>)>,
}

struct Reader<'files> {
    files: &'files dyn Files,
    problems: Vec<Diagnostic>,
    parts: Parts,
}

/// A mapping whose keys are looked at one by one, so that those nobody asked for stand out.
struct Fields<'node> {
    entries: &'node [(Node, Node)],
    origin: &'node Origin,
    known: &'static [&'static str],
}

impl<'node> Fields<'node> {
    fn get(&self, key: &str) -> Option<&'node Node> {
        debug_assert!(self.known.contains(&key), "{key} is declared");
        self.entries
            .iter()
            .find(|(name, _)| name.as_str() == Some(key))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }
}

impl Reader<'_> {
    fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    fn expected(&mut self, node: &Node, expected: &str) {
        self.problem(
            Diagnostic::error(format!("expected {expected}, found {}", node.kind_name()))
                .at(&node.origin)
                .label(format!("expected {expected}")),
        );
    }

    /// Reads one file and those it includes; `open` are the files this one is included from.
    fn file(&mut self, path: &Path, included_at: Option<&Origin>, open: &mut Vec<PathBuf>) {
        let path = normalised(path);
        if open.contains(&path) {
            self.include_loop(&path, included_at, open);
            return;
        }
        let text = match self.files.text(&path) {
            Ok(text) => text,
            Err(reason) => {
                let mut problem =
                    Diagnostic::error(format!("failed to read {}: {reason}", path.display()));
                if let Some(origin) = included_at {
                    problem = problem.at(origin).label("included here");
                }
                return self.problem(problem);
            }
        };
        let source = Source::new(path.display().to_string(), text);
        match yaml::parse(&source) {
            Err(problem) => self.problem(problem),
            Ok(node) => {
                open.push(path);
                self.document(&node, open);
                open.pop();
            }
        }
    }

    fn include_loop(&mut self, path: &Path, included_at: Option<&Origin>, open: &[PathBuf]) {
        let start = open.iter().position(|each| each == path).unwrap_or(0);
        let way: Vec<String> = open[start..]
            .iter()
            .map(PathBuf::as_path)
            .chain([path])
            .map(|each| each.display().to_string())
            .collect();
        let mut problem = Diagnostic::error(format!("a loop of includes: {}", way.join(" -> ")))
            .help("take out one of the includes; what several files need goes into one that includes nothing");
        if let Some(origin) = included_at {
            problem = problem
                .at(origin)
                .label("leads back to a file that is being read");
        }
        self.problem(problem);
    }

    fn document(&mut self, node: &Node, open: &mut Vec<PathBuf>) {
        let Some(fields) = self.fields(
            node,
            "the topology",
            &["include", "networks", "machines", "client"],
        ) else {
            return;
        };
        if let Some(include) = fields.get("include") {
            self.includes(include, open);
        }
        if let Some(networks) = fields.get("networks") {
            self.each_named(networks, "networks by name", Self::network);
        }
        if let Some(machines) = fields.get("machines") {
            let folder = open
                .last()
                .and_then(|path| path.parent())
                .map(Path::to_owned);
            self.each_named(machines, "machines by name", |reader, name, value| {
                reader.machine(
                    name,
                    value,
                    folder.as_deref().unwrap_or_else(|| Path::new("")),
                );
            });
        }
        if let Some(client) = fields.get("client") {
            self.client(client);
        }
    }

    fn includes(&mut self, include: &Node, open: &mut Vec<PathBuf>) {
        let folder = open
            .last()
            .and_then(|path| path.parent())
            .map(Path::to_owned)
            .unwrap_or_default();
        let items = match &include.kind {
            Kind::Seq(items) => items.as_slice(),
            _ => std::slice::from_ref(include),
        };
        for item in items {
            match item.as_str() {
                Some(name) => self.file(&folder.join(name), Some(&item.origin), open),
                None => self.expected(item, "the name of a topology file"),
            }
        }
    }

    /// Opens a mapping and reports the keys that are not known.
    fn fields<'node>(
        &mut self,
        node: &'node Node,
        of: &str,
        known: &'static [&'static str],
    ) -> Option<Fields<'node>> {
        let Some(entries) = node.as_map() else {
            self.expected(node, &format!("a mapping with {}", list(known)));
            return None;
        };
        for (key, _) in entries {
            let typed = key.key_text();
            if !known.contains(&typed.as_str()) {
                self.problem(
                    Diagnostic::error(format!("unknown key `{typed}` in {of}"))
                        .at(&key.origin)
                        .label(format!("expected {}", list(known)))
                        .nearest(&typed, known.iter().copied()),
                );
            }
        }
        Some(Fields {
            entries,
            origin: &node.origin,
            known,
        })
    }

    fn each_named(
        &mut self,
        node: &Node,
        expected: &str,
        mut each: impl FnMut(&mut Self, &Node, &Node),
    ) {
        let Some(entries) = node.as_map() else {
            return self.expected(node, &format!("a mapping of {expected}"));
        };
        for (name, value) in entries {
            if name.as_str().is_some() {
                each(self, name, value);
            } else {
                self.expected(name, "a name");
            }
        }
    }

    fn text<'node>(&mut self, node: &'node Node, expected: &str) -> Option<&'node str> {
        let text = node.as_str();
        if text.is_none() {
            self.expected(node, expected);
        }
        text
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        node: &Node,
        expected: &str,
    ) -> Option<T> {
        match self.text(node, expected)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(
                    Diagnostic::error(error.to_string())
                        .at(&node.origin)
                        .label(format!("expected {expected}")),
                );
                None
            }
        }
    }

    fn size(&mut self, node: &Node, range: (ByteSize, ByteSize)) -> Option<ByteSize> {
        let size: ByteSize = self.parsed(node, "a size, such as `384 MiB`")?;
        if size < range.0 || size > range.1 {
            self.problem(
                Diagnostic::error(format!(
                    "{size} is too {}",
                    if size < range.0 { "small" } else { "large" }
                ))
                .at(&node.origin)
                .label(format!("expected {} to {}", range.0, range.1)),
            );
            return None;
        }
        Some(size)
    }

    fn network(&mut self, name_node: &Node, value: &Node) {
        let name = name_node.key_text();
        if !is_interface_name(&name) {
            self.problem(
                Diagnostic::error(format!("`{name}` cannot be a network's name"))
                    .at(&name_node.origin)
                    .label(format!(
                        "expected letters, digits, `-` and `_`, at most {INTERFACE_NAME_BYTES_MAX}: a bridge is named so"
                    )),
            );
        }
        if let Some((_, first)) = self
            .parts
            .networks
            .iter()
            .find(|(network, _)| network.name == name)
        {
            let problem = twice("network", &name, &name_node.origin, first);
            return self.problem(problem);
        }
        let client = if value.is_null() {
            None
        } else {
            self.fields(value, "a network", &["client"])
                .and_then(|fields| fields.get("client"))
                .and_then(|node| {
                    let cidr: Cidr =
                        self.parsed(node, "the client's address, such as 10.0.0.254/24")?;
                    self.claim(cidr, "the client", &node.origin);
                    Some(cidr)
                })
        };
        self.parts
            .networks
            .push((Network { name, client }, name_node.origin.clone()));
    }

    /// Notes who has an address, and reports the second who claims it.
    fn claim(&mut self, cidr: Cidr, who: &str, origin: &Origin) {
        if let Some((owner, first)) = self.parts.addresses.get(&cidr.address) {
            let problem =
                Diagnostic::error(format!("{who} and {owner} both have {}", cidr.address))
                    .at(origin)
                    .label("the same address again")
                    .related(first, format!("{owner} has it here"))
                    .help("give one of them another address of the network");
            return self.problem(problem);
        }
        self.parts
            .addresses
            .insert(cidr.address, (who.to_owned(), origin.clone()));
    }

    fn groups(&mut self, node: Option<&Node>) -> Vec<String> {
        let Some(node) = node else {
            return Vec::new();
        };
        let Some(items) = node.as_seq() else {
            self.expected(node, "a list of group names");
            return Vec::new();
        };
        let mut groups = Vec::new();
        for item in items {
            let Some(name) = self.text(item, "a group's name") else {
                continue;
            };
            if !is_group_name(name) {
                self.problem(
                    Diagnostic::error(format!("`{name}` cannot be a group's name"))
                        .at(&item.origin)
                        .label("expected letters, digits and `_`, no digit first, not `all` nor `ungrouped`"),
                );
            } else if !groups.iter().any(|known| known == name) {
                groups.push(name.to_owned());
            }
        }
        groups
    }

    fn machine(&mut self, name_node: &Node, value: &Node, folder: &Path) {
        let name = name_node.key_text();
        self.host_name(&name, &name_node.origin);
        if let Some((_, places)) = self
            .parts
            .machines
            .iter()
            .find(|(machine, _)| machine.name == name)
        {
            let problem = twice("machine", &name, &name_node.origin, &places.machine);
            return self.problem(problem);
        }
        let Some(fields) = self.fields(value, "a machine", &["groups", "memory", "nics", "disks"])
        else {
            return;
        };
        let groups = self.groups(fields.get("groups"));
        let memory = self
            .required(&fields, "memory", "memory: 384 MiB")
            .and_then(|node| self.size(node, (MEMORY_MIN, MEMORY_MAX)));
        let (nics, nic_places) = self
            .required(
                &fields,
                "nics",
                "nics: {eth0: {network: br0, address: 10.0.0.10/24}}",
            )
            .map(|node| self.nics(&name, node))
            .unwrap_or_default();
        let disks = self
            .required(&fields, "disks", "disks: {sda: {root: true}}")
            .map(|node| self.disks(node, folder))
            .unwrap_or_default();
        let places = Places {
            machine: name_node.origin.clone(),
            nics: nic_places,
        };
        let machine = Machine {
            name,
            groups,
            memory: memory.unwrap_or(MEMORY_MIN),
            nics,
            disks,
        };
        self.parts.machines.push((machine, places));
    }

    fn host_name(&mut self, name: &str, origin: &Origin) {
        if !is_host_name(name) {
            self.problem(
                Diagnostic::error(format!("`{name}` cannot be a host name"))
                    .at(origin)
                    .label(format!(
                        "expected letters, digits and `-` (not first, not last), at most {HOST_NAME_BYTES_MAX}"
                    )),
            );
        }
    }

    fn required<'node>(
        &mut self,
        fields: &Fields<'node>,
        key: &str,
        example: &str,
    ) -> Option<&'node Node> {
        let found = fields.get(key);
        if found.is_none() {
            self.problem(
                Diagnostic::error(format!("`{key}` is missing"))
                    .at(fields.origin)
                    .help(format!("for example `{example}`")),
            );
        }
        found
    }

    fn nics(&mut self, machine: &str, node: &Node) -> (Vec<Nic>, Vec<(Origin, Option<Origin>)>) {
        let (mut nics, mut places) = (Vec::new(), Vec::new());
        self.each_in_order(
            node,
            "cards",
            NICS_MAX,
            |index| format!("eth{index}"),
            |reader, name, value| {
                if let Some((nic, place)) = reader.nic(machine, name, value) {
                    nics.push(nic);
                    places.push(place);
                }
            },
        );
        (nics, places)
    }

    /// Walks devices that the guest names by their order.
    fn each_in_order(
        &mut self,
        node: &Node,
        what: &str,
        count_max: usize,
        name_of: impl Fn(usize) -> String,
        mut each: impl FnMut(&mut Self, String, &Node),
    ) {
        let Some(entries) = node.as_map() else {
            return self.expected(
                node,
                &format!("a mapping of {what} by name, {} first", name_of(0)),
            );
        };
        if entries.len() > count_max {
            self.problem(
                Diagnostic::error(format!("more than {count_max} {what} on one machine"))
                    .at(&node.origin),
            );
        }
        for (index, (key, value)) in entries.iter().enumerate() {
            let expected = name_of(index);
            if key.key_text() != expected {
                self.problem(
                    Diagnostic::error(format!(
                        "expected `{expected}` here, found `{}`",
                        key.key_text()
                    ))
                    .at(&key.origin)
                    .label(format!("the guest will call it `{expected}`"))
                    .help(format!(
                        "the guest names its {what} by their order: {}, {}, …",
                        name_of(0),
                        name_of(1)
                    )),
                );
            }
            each(self, expected, value);
        }
    }

    fn nic(
        &mut self,
        machine: &str,
        name: String,
        value: &Node,
    ) -> Option<(Nic, (Origin, Option<Origin>))> {
        let fields = self.fields(value, "a card", &["network", "address"])?;
        let network_node = self.required(&fields, "network", "network: br0")?;
        let network = self.text(network_node, "a network's name")?.to_owned();
        let address_node = fields.get("address");
        let address: Option<Cidr> =
            address_node.and_then(|node| self.parsed(node, "an address, such as 10.0.0.10/24"));
        if let (Some(cidr), Some(node)) = (address, address_node) {
            self.claim(cidr, &format!("{machine} {name}"), &node.origin);
        }
        let nic = Nic {
            name,
            network,
            address,
            // Both are given when the machine's place in the whole topology is known.
            mac: MacAddress::of_nic(0, 0),
            tap: String::new(),
        };
        Some((
            nic,
            (
                network_node.origin.clone(),
                address_node.map(|node| node.origin.clone()),
            ),
        ))
    }

    fn disks(&mut self, node: &Node, folder: &Path) -> Vec<Disk> {
        let mut disks = Vec::new();
        self.each_in_order(
            node,
            "disks",
            DISKS_MAX,
            disk_name,
            |reader, name, value| {
                let Some(content) = reader.disk(value, folder) else {
                    return;
                };
                if (content == DiskContent::Root) != (name == "sda") {
                    let problem = Diagnostic::error("the root disk is `sda`, and only that")
                        .at(&value.origin)
                        .label(if name == "sda" {
                            "expected `{root: true}`"
                        } else {
                            "expected `file` and `size`, or `image`"
                        });
                    reader.problem(problem);
                }
                disks.push(Disk { name, content });
            },
        );
        disks
    }

    fn disk(&mut self, value: &Node, folder: &Path) -> Option<DiskContent> {
        let fields = self.fields(
            value,
            "a disk",
            &["root", "file", "size", "partitions", "image"],
        )?;
        match (fields.get("root"), fields.get("file"), fields.get("image")) {
            (Some(root), None, None) => {
                if root.kind != Kind::Bool(true) {
                    self.expected(root, "`true`");
                }
                self.refuse_beside(&fields, "root", &["size", "partitions"]);
                Some(DiskContent::Root)
            }
            (None, Some(file), None) => self.blank_disk(&fields, file),
            (None, None, Some(image)) => {
                self.refuse_beside(&fields, "image", &["size", "partitions"]);
                self.image_disk(image, folder)
            }
            _ => {
                self.problem(
                    Diagnostic::error("a disk is one of `root`, `file` and `image`")
                        .at(&value.origin)
                        .help("`{root: true}`: the guest image")
                        .help("`{file: data.qcow2, size: 256 MiB, partitions: 1}`: an empty disk")
                        .help("`{image: mine.qcow2}`: an overlay on your image"),
                );
                None
            }
        }
    }

    fn refuse_beside(&mut self, fields: &Fields<'_>, kind: &str, keys: &[&str]) {
        for key in keys {
            if let Some(node) = fields.get(key) {
                self.problem(
                    Diagnostic::error(format!("`{key}` has no meaning beside `{kind}`"))
                        .at(&node.origin)
                        .label("take it out"),
                );
            }
        }
    }

    fn blank_disk(&mut self, fields: &Fields<'_>, file_node: &Node) -> Option<DiskContent> {
        let file = self
            .text(file_node, "a file's name, such as data.qcow2")?
            .to_owned();
        if !is_file_name(&file) {
            self.problem(
                Diagnostic::error(format!("`{file}` is no plain file name"))
                    .at(&file_node.origin)
                    .label("expected letters, digits, `-`, `_` and `.`: the file lives in the lab's own folder"),
            );
        }
        match self.parts.disk_files.get(&file) {
            Some(first) => {
                let problem = twice("disk file", &file, &file_node.origin, first);
                self.problem(problem);
            }
            None => {
                self.parts
                    .disk_files
                    .insert(file.clone(), file_node.origin.clone());
            }
        }
        let size = self
            .required(fields, "size", "size: 256 MiB")
            .and_then(|node| self.size(node, (DISK_MIN, DISK_MAX)))?;
        let partitions = match fields.get("partitions") {
            None => 0,
            Some(node) => self.partitions(node)?,
        };
        Some(DiskContent::Blank {
            file,
            size,
            partitions,
        })
    }

    fn partitions(&mut self, node: &Node) -> Option<u8> {
        match node.kind {
            Kind::Int(count) if (0..=PARTITIONS_MAX).contains(&count) => u8::try_from(count).ok(),
            Kind::Int(count) => {
                self.problem(
                    Diagnostic::error(format!("{count} partitions on one disk"))
                        .at(&node.origin)
                        .label(format!("expected 0 to {PARTITIONS_MAX}")),
                );
                None
            }
            _ => {
                self.expected(node, "a number of partitions");
                None
            }
        }
    }

    fn image_disk(&mut self, node: &Node, folder: &Path) -> Option<DiskContent> {
        let path = normalised(&folder.join(self.text(node, "the path of a qcow2 image")?));
        let head = match self.files.head(&path, qcow2::HEAD_BYTES) {
            Ok(head) => head,
            Err(reason) => {
                self.problem(
                    Diagnostic::error(format!(
                        "failed to read the image {}: {reason}",
                        path.display()
                    ))
                    .at(&node.origin),
                );
                return None;
            }
        };
        let refused = match qcow2::Header::parse(&head) {
            Err(error) => Some(format!("{} is no qcow2 image: {error}", path.display())),
            Ok(header) if header.has_backing_file() => {
                Some(format!("{} needs a backing file", path.display()))
            }
            Ok(header) if header.has_external_data => Some(format!(
                "{} has its content in another file",
                path.display()
            )),
            Ok(header) if header.is_encrypted => Some(format!("{} is encrypted", path.display())),
            Ok(_) => None,
        };
        if let Some(message) = refused {
            self.problem(
                Diagnostic::error(message)
                    .at(&node.origin)
                    .label("expected a qcow2 image that stands alone")
                    .help(format!(
                        "make one: qemu-img convert -O qcow2 {} new.qcow2",
                        path.display()
                    )),
            );
            return None;
        }
        Some(DiskContent::Image { path })
    }

    fn client(&mut self, node: &Node) {
        let Some(fields) = self.fields(node, "the client", &["name", "groups"]) else {
            return;
        };
        if let Some((_, first)) = &self.parts.client {
            let problem = Diagnostic::error("the client stands twice")
                .at(&node.origin)
                .related(first, "first here");
            return self.problem(problem);
        }
        let name = match fields.get("name") {
            None => "client".to_owned(),
            Some(name_node) => {
                let Some(name) = self.text(name_node, "a host name") else {
                    return;
                };
                self.host_name(name, &name_node.origin);
                name.to_owned()
            }
        };
        let groups = self.groups(fields.get("groups"));
        self.parts.client = Some((Client { name, groups }, node.origin.clone()));
    }

    /// Checks what needs all files, and puts the topology together.
    fn finish(&mut self) -> Option<Topology> {
        let parts = std::mem::take(&mut self.parts);
        if parts.machines.is_empty() {
            if self.problems.is_empty() {
                self.problem(
                    Diagnostic::error("the topology has no machine")
                        .help("name at least one under `machines:`"),
                );
            }
            return None;
        }
        if let Some((machine, places)) = parts.machines.get(MACHINES_MAX) {
            self.problem(
                Diagnostic::error(format!("`{}` is one machine too many", machine.name))
                    .at(&places.machine)
                    .label(format!("a lab has at most {MACHINES_MAX}")),
            );
        }
        for (machine, places) in &parts.machines {
            self.machine_on_networks(machine, places, &parts.networks);
        }
        let (client, client_origin) = parts.client.map_or_else(
            || (default_client(), None),
            |(client, origin)| (client, Some(origin)),
        );
        if let Some((machine, places)) = parts
            .machines
            .iter()
            .find(|(machine, _)| machine.name == client.name)
        {
            let mut problem = Diagnostic::error(format!("`{}` is the client's name", machine.name))
                .at(&places.machine);
            if let Some(origin) = &client_origin {
                problem = problem.related(origin, "the client");
            }
            self.problem(problem);
        }
        let machines = parts
            .machines
            .into_iter()
            .enumerate()
            .map(|(index, (machine, _))| wired(index, machine))
            .collect();
        Some(Topology {
            networks: parts
                .networks
                .into_iter()
                .map(|(network, _)| network)
                .collect(),
            machines,
            client,
        })
    }

    fn machine_on_networks(
        &mut self,
        machine: &Machine,
        places: &Places,
        networks: &[(Network, Origin)],
    ) {
        let mut reachable = false;
        for (nic, (network_origin, address_origin)) in machine.nics.iter().zip(&places.nics) {
            let Some((network, network_place)) = networks
                .iter()
                .find(|(network, _)| network.name == nic.network)
            else {
                let names: Vec<&str> = networks
                    .iter()
                    .map(|(network, _)| network.name.as_str())
                    .collect();
                self.problem(
                    Diagnostic::error(format!("there is no network `{}`", nic.network))
                        .at(network_origin)
                        .label(format!("expected {}", list(&names)))
                        .nearest(&nic.network, names),
                );
                // Reported already; a second complaint would not help.
                reachable = true;
                continue;
            };
            let (Some(client), Some(address)) = (network.client, nic.address) else {
                continue;
            };
            reachable = true;
            if client.network() != address.network() {
                self.problem(
                    Diagnostic::error(format!(
                        "{address} is outside the network `{}`, which is {}",
                        network.name,
                        client.network()
                    ))
                    .at(address_origin.as_ref().unwrap_or(network_origin))
                    .label(format!("expected an address in {}", client.network()))
                    .related(network_place, "the network"),
                );
            }
        }
        if !reachable {
            self.problem(
                Diagnostic::error(format!("the client cannot reach `{}`", machine.name))
                    .at(&places.machine)
                    .label("none of its cards has an address on a network of the client's")
                    .help("give one card an `address:` on a network that has a `client:`"),
            );
        }
    }
}

fn default_client() -> Client {
    Client {
        name: "client".into(),
        groups: vec!["client".into()],
    }
}

/// Gives a machine's cards what follows from its place: addresses and the taps' names.
fn wired(index: usize, mut machine: Machine) -> Machine {
    for (nic_index, nic) in machine.nics.iter_mut().enumerate() {
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        nic.mac = MacAddress::of_nic(byte(index).min(u8::MAX - 1), byte(nic_index));
        let readable = format!("{}-{}", machine.name, nic.name);
        nic.tap = if readable.len() <= INTERFACE_NAME_BYTES_MAX {
            readable
        } else {
            format!("m{}-{}", index + 1, nic.name)
        };
    }
    machine
}

fn twice(what: &str, name: &str, again: &Origin, first: &Origin) -> Diagnostic {
    Diagnostic::error(format!("the {what} `{name}` stands twice"))
        .at(again)
        .label("again here")
        .related(first, "first here")
}

fn disk_name(index: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(index.min(25)).unwrap_or(25));
    format!("sd{letter}")
}

/// Writes "`a`, `b` or `c`".
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// Takes `.` and `..` out of a path by its words alone, so that a loop of includes shows.
fn normalised(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= HOST_NAME_BYTES_MAX
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || each == b'-')
}

fn is_interface_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= INTERFACE_NAME_BYTES_MAX
        && !matches!(name, "lo" | "all" | "default")
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || b"-_".contains(&each))
}

fn is_group_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && !matches!(name, "all" | "ungrouped")
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || each == b'_')
}

fn is_file_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || b"-_.".contains(&each))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Texts(BTreeMap<PathBuf, Vec<u8>>);

    impl Files for Texts {
        fn text(&self, path: &Path) -> Result<String, String> {
            let bytes = self.0.get(path).ok_or("no such file")?;
            String::from_utf8(bytes.clone()).map_err(|error| error.to_string())
        }

        fn head(&self, path: &Path, bytes: usize) -> Result<Vec<u8>, String> {
            let all = self.0.get(path).ok_or("no such file")?;
            Ok(all[..all.len().min(bytes)].to_vec())
        }
    }

    fn read_texts(texts: &[(&str, &[u8])]) -> Result<Topology, Vec<Diagnostic>> {
        let files = texts
            .iter()
            .map(|(path, bytes)| (PathBuf::from(path), bytes.to_vec()))
            .collect();
        read(Path::new("vm/topology.yml"), &Texts(files))
    }

    fn read_text(text: &str) -> Result<Topology, Vec<Diagnostic>> {
        read_texts(&[("vm/topology.yml", text.as_bytes())])
    }

    /// Returns "line:column message" of each problem.
    fn problems(text: &str) -> Vec<String> {
        shown(read_text(text).expect_err("the topology is wrong"))
    }

    fn shown(problems: Vec<Diagnostic>) -> Vec<String> {
        problems
            .into_iter()
            .map(|problem| match problem.origin {
                Some(at) => format!("{}:{} {}", at.line(), at.column(), problem.message),
                None => problem.message,
            })
            .collect()
    }

    const ONE: &str = "networks: {br0: {client: 10.0.0.254/24}, direct: }
machines:
  one:
    memory: 384 MiB
    nics: {eth0: {network: br0, address: 10.0.0.10/24}, eth1: {network: direct}}
    disks: {sda: {root: true}, sdb: {file: data.qcow2, size: 256 MiB, partitions: 1}}
";

    #[test]
    fn the_labs_own_topology_is_sound() {
        let topology = read_text(include_str!("../../vm/topology.yml")).expect("sound");
        let names: Vec<&str> = topology.machine_names().collect();
        assert_eq!(names, ["saisp-vm-1", "saisp-vm-2", "saisp-vm-3"]);
        let second = topology.machine("saisp-vm-2").expect("there");
        assert_eq!(second.nics[1].tap, "saisp-vm-2-eth1");
        assert_eq!(second.nics[1].mac.to_string(), "52:54:00:00:02:01");
        assert_eq!(topology.address_for_client(second).to_string(), "10.0.0.20");
        assert_eq!(topology.client.name, "client");
    }

    #[test]
    fn a_small_topology_is_read_whole() {
        let topology = read_text(ONE).expect("sound");
        assert_eq!(
            topology.machines[0].disks[1].content,
            DiskContent::Blank {
                file: "data.qcow2".into(),
                size: ByteSize::from_mib(256),
                partitions: 1
            }
        );
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_place() {
        let text = "networks: {br0: {client: 10.0.0.254/24, mut: 1500}}
machines:
  web_1:
    memry: 384 MiB
    memory: 64 MiB
    nics: {eth0: {network: br1, address: 10.0.0.300/24}}
    disks: {sda: {root: true}, sdc: {file: ../x, size: big}}
  two:
    groups: [all]
    memory: 384 MiB
    nics: {eth0: {network: br0, address: 10.0.1.2/24}}
    disks: {sda: {file: y.qcow2, size: 8 MiB, partitions: 9}}
";
        assert_eq!(
            problems(text),
            [
                "1:41 unknown key `mut` in a network",
                "3:3 `web_1` cannot be a host name",
                "4:5 unknown key `memry` in a machine",
                "5:13 64 MiB is too small",
                "6:42 `10.0.0.300/24` is no address: expected four numbers from 0 to 255 before the slash",
                "7:32 expected `sdb` here, found `sdc`",
                "7:44 `../x` is no plain file name",
                "7:56 `big` is no size: expected a number and a unit, such as `384 MiB` or `1 GiB`",
                "9:14 `all` cannot be a group's name",
                "12:59 9 partitions on one disk",
                "6:28 there is no network `br1`",
                "11:42 10.0.1.2/24 is outside the network `br0`, which is 10.0.0.0/24",
            ]
        );
    }

    #[test]
    fn two_equal_addresses_name_both_places() {
        let text = ONE.replace(
            "machines:\n",
            "machines:\n  other:
    memory: 384 MiB
    nics: {eth0: {network: br0, address: 10.0.0.10/24}}
    disks: {sda: {root: true}}\n",
        );
        let found = read_text(&text).expect_err("equal addresses");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].message,
            "one eth0 and other eth0 both have 10.0.0.10"
        );
        assert_eq!(found[0].related[0].0.line(), 5);
    }

    #[test]
    fn a_machine_out_of_reach_is_refused() {
        let text = ONE.replace(", address: 10.0.0.10/24", "");
        assert_eq!(problems(&text), ["3:3 the client cannot reach `one`"]);
    }

    #[test]
    fn includes_add_up_and_a_loop_is_named() {
        let entry = "include: [nets.yml]\nmachines:
  one: {memory: 384 MiB, nics: {eth0: {network: br0, address: 10.0.0.1/24}}, disks: {sda: {root: yes}}}\n";
        let nets = "networks: {br0: {client: 10.0.0.254/24}}\n";
        let topology = read_texts(&[
            ("vm/topology.yml", entry.as_bytes()),
            ("vm/nets.yml", nets.as_bytes()),
        ]);
        assert_eq!(topology.expect("sound").networks.len(), 1);

        let looping = "include: ./../vm/topology.yml\nnetworks: {br0: {client: 10.0.0.254/24}}\n";
        let found = read_texts(&[
            ("vm/topology.yml", entry.as_bytes()),
            ("vm/nets.yml", looping.as_bytes()),
        ])
        .expect_err("a loop");
        let origin = found[0].origin.clone().expect("a place");
        assert_eq!(origin.to_string(), "vm/nets.yml:1:10");
        assert_eq!(
            found[0].message,
            "a loop of includes: vm/topology.yml -> vm/nets.yml -> vm/topology.yml"
        );
    }

    #[test]
    fn an_image_that_is_not_qcow2_is_refused() {
        let text = ONE.replace(
            "file: data.qcow2, size: 256 MiB, partitions: 1",
            "image: mine.img",
        );
        let alone = qcow2::empty_overlay(1 << 20, "x");
        for (bytes, expected) in [
            (b"just text".as_slice(), "is no qcow2 image"),
            (&alone, "needs a backing file"),
        ] {
            let found = read_texts(&[("vm/topology.yml", text.as_bytes()), ("vm/mine.img", bytes)])
                .expect_err("refused");
            assert!(found[0].message.contains(expected), "{}", found[0].message);
        }
        let missing = read_text(&text).expect_err("missing");
        assert!(
            missing[0].message.contains("no such file"),
            "{}",
            missing[0].message
        );
    }

    #[test]
    fn a_topology_without_machines_is_refused() {
        assert_eq!(
            problems("networks: {br0: }\n"),
            ["the topology has no machine"]
        );
        assert_eq!(
            problems(""),
            [
                "1:1 expected a mapping with `include`, `networks`, `machines` or `client`, found nothing"
            ]
        );
    }
}
