//! What halab needs of the host, decided from what was found there.
//!
//! [`super::probe`] fills in [`HostFacts`]; [`diagnose`] turns them into one [`Finding`] for each
//! prerequisite, and [`repair`] into what apt has to do. Nothing here looks at the host itself, so
//! that every combination of system, user and missing part can be tried in a test.

use std::fmt;
use std::path::PathBuf;

use super::apt::{self, AptSource, OsRelease};
use super::spec::Accelerator;

/// Oldest QEMU that runs the lab's kernel without KVM: 7.2 crashes it at random.
const QEMU_MIN_TCG: QemuVersion = QemuVersion::new(8, 2, 0);

/// Oldest QEMU tried with KVM, where the processor itself carries the instructions out.
const QEMU_MIN_KVM: QemuVersion = QemuVersion::new(7, 2, 0);

/// Packages, folder and disk of one image build, with a fifth to spare.
const DISK_FOR_BUILD_BYTES: u64 = 3 << 30;

/// What overlays and snapshots of a lab grow to.
const DISK_FOR_LAB_BYTES: u64 = 1 << 30;

/// Three machines of 384 MiB and what QEMU needs beside each.
const MEMORY_FOR_LAB_BYTES: u64 = 1536 << 20;

/// The file that names Debian's backports, so that it is seen whose doing it is.
pub const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/halab-backports.sources";

/// Where Debian's own package puts the archive's keys.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The release of Debian whose QEMU is too old, and where it has a newer one.
const BOOKWORM: &str = "bookworm";
const BOOKWORM_BACKPORTS: &str = "bookworm-backports";

/// A QEMU version; a later one is greater, whatever its digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl QemuVersion {
    pub const fn new(major: u32, minor: u32, micro: u32) -> Self {
        Self {
            major,
            minor,
            micro,
        }
    }

    /// Reads the first line of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("version ")?;
        let number = rest
            .split(|each: char| !each.is_ascii_digit() && each != '.')
            .next()?;
        let mut parts = number.split('.').map(str::parse);
        Some(Self {
            major: parts.next()?.ok()?,
            minor: parts.next()?.ok()?,
            micro: parts.next().unwrap_or(Ok(0)).ok()?,
        })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A program halab runs, the package it comes in, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    pub purpose: &'static str,
    pub needed_by: NeededBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededBy {
    Everybody,
    /// Root does without.
    Users,
}

pub const QEMU: &str = "qemu-system-x86_64";

/// Everything halab runs on the host, QEMU apart.
pub const PROGRAMS: [Program; 11] = [
    Program::new("qemu-img", "qemu-utils", "makes the machines' disks"),
    Program::new(
        "mmdebstrap",
        "mmdebstrap",
        "builds the machines' image from Debian's packages",
    ),
    Program::new("mke2fs", "e2fsprogs", "makes the image's file system"),
    Program::new("ip", "iproute2", "makes the lab's network"),
    Program::new("tc", "iproute2", "loses packets on purpose"),
    Program::new("ssh", "openssh-client", "reaches the machines"),
    Program::new("ssh-keygen", "openssh-client", "makes the lab's keys"),
    Program::new(
        "unshare",
        "util-linux",
        "keeps the lab's network apart from yours",
    ),
    Program::new("nsenter", "util-linux", "enters the lab's network"),
    Program::new(
        "setpriv",
        "util-linux",
        "ends what halab started when halab ends",
    ),
    Program {
        name: "newuidmap",
        package: "uidmap",
        purpose: "lets an ordinary user build the image",
        needed_by: NeededBy::Users,
    },
];

impl Program {
    const fn new(name: &'static str, package: &'static str, purpose: &'static str) -> Self {
        Self {
            name,
            package,
            purpose,
            needed_by: NeededBy::Everybody,
        }
    }
}

/// What is known of KVM on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmFact {
    /// No `/dev/kvm`.
    Absent,
    /// It is there and does not open for this user.
    Denied(String),
    /// It opens, but no guest runs: what happened instead.
    Broken(String),
    /// It opens, and without QEMU nothing more can be said.
    Untried,
    /// A guest has run.
    Works,
}

/// What was found on the host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    pub is_root: bool,
    pub user: String,
    pub os: OsRelease,
    /// Programs of [`PROGRAMS`] that are not on the search path.
    pub missing_programs: Vec<&'static str>,
    /// What QEMU says of itself; `None` where there is no QEMU.
    pub qemu: Option<String>,
    pub kvm: KvmFact,
    pub has_debian_keyring: bool,
    /// Memory that programs can have without swapping; `None` where the kernel does not say.
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub cache_dir: PathBuf,
    pub image_is_built: bool,
    /// Whether namespaces as halab uses them can be made, and the failure's words if not.
    pub namespaces: Result<(), String>,
    pub tun: Result<(), String>,
}

/// One prerequisite and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub state: State,
    pub fix: Option<Fix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Found(String),
    /// halab works, and worse than it could.
    Limited(Lack),
    /// halab does not work.
    Missing(Lack),
}

/// What is lacking, what it is for, and how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub what: String,
    pub why: String,
    pub how: String,
}

/// How halab mends it itself, as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Packages, from the release itself or from a suite beside it.
    Apt {
        packages: Vec<&'static str>,
        suite: Option<&'static str>,
    },
}

impl Finding {
    fn found(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Found(detail.into()),
            fix: None,
        }
    }

    fn limited(name: &'static str, lack: Lack) -> Self {
        Self {
            name,
            state: State::Limited(lack),
            fix: None,
        }
    }

    fn missing(name: &'static str, lack: Lack) -> Self {
        Self {
            name,
            state: State::Missing(lack),
            fix: None,
        }
    }

    fn with_fix(self, fix: Option<Fix>) -> Self {
        Self { fix, ..self }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing(_))
    }
}

impl Lack {
    fn new(what: impl Into<String>, why: impl Into<String>, how: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            how: how.into(),
        }
    }
}

/// How the machines run on a host with this KVM.
pub fn accelerator(kvm: &KvmFact) -> Accelerator {
    match kvm {
        KvmFact::Works => Accelerator::Kvm,
        KvmFact::Absent | KvmFact::Denied(_) | KvmFact::Broken(_) | KvmFact::Untried => {
            Accelerator::Tcg
        }
    }
}

/// Judges every prerequisite, in the order in which they are shown.
pub fn diagnose(facts: &HostFacts) -> Vec<Finding> {
    let mut findings = vec![qemu(facts), kvm(facts)];
    let needed = |program: &&Program| program.needed_by == NeededBy::Everybody || !facts.is_root;
    findings.extend(
        PROGRAMS
            .iter()
            .filter(needed)
            .map(|each| program(facts, each)),
    );
    findings.extend([
        keyring(facts),
        namespaces(facts),
        tun(facts),
        memory(facts),
        disk(facts),
    ]);
    findings
}

fn qemu(facts: &HostFacts) -> Finding {
    const NAME: &str = "QEMU";
    let why = "runs the lab's machines";
    let accelerator = accelerator(&facts.kvm);
    let (needed, without_kvm) = match accelerator {
        Accelerator::Kvm => (QEMU_MIN_KVM, ""),
        Accelerator::Tcg => (QEMU_MIN_TCG, " without KVM"),
    };
    let is_bookworm = facts.os.is_debian() && facts.os.codename == BOOKWORM;
    let fix = Some(Fix::Apt {
        packages: vec!["qemu-system-x86", "qemu-utils"],
        suite: is_bookworm.then_some(BOOKWORM_BACKPORTS),
    });
    let Some(said) = &facts.qemu else {
        let lack = Lack::new(
            format!("{QEMU} is not installed"),
            why,
            install(facts, fix.as_ref()),
        );
        return Finding::missing(NAME, lack).with_fix(offered(facts, fix));
    };
    let Some(version) = QemuVersion::parse(said) else {
        let lack = Lack::new(
            format!("{QEMU} does not say which version it is: {said:?}"),
            why,
            format!("run `{QEMU} --version` and mend what it complains of"),
        );
        return Finding::missing(NAME, lack);
    };
    if version >= needed {
        return Finding::found(NAME, version.to_string());
    }
    let what = format!("found {version}, {needed} or newer is needed{without_kvm}");
    let why = "older ones crash the machines' kernel at random when they emulate the processor";
    if is_bookworm {
        let lack = Lack::new(what, why, install(facts, fix.as_ref()));
        return Finding::missing(NAME, lack).with_fix(offered(facts, fix));
    }
    let how = "use a newer release (Debian 13 and Ubuntu 24.04 have one), or a machine with KVM";
    Finding::missing(NAME, Lack::new(what, why, how))
}

fn kvm(facts: &HostFacts) -> Finding {
    const NAME: &str = "KVM";
    let why = "without it the processor is emulated: everything works, about ten times slower";
    let (what, how) = match &facts.kvm {
        KvmFact::Works => return Finding::found(NAME, "runs guests"),
        KvmFact::Untried => return Finding::found(NAME, "opens; tried as soon as QEMU is there"),
        KvmFact::Absent => (
            "there is no /dev/kvm".to_owned(),
            "switch virtualisation on in the firmware, or nested virtualisation in this virtual machine's host".to_owned(),
        ),
        KvmFact::Denied(reason) => (
            format!("/dev/kvm does not open: {reason}"),
            format!("sudo usermod -aG kvm {}, then log in again", facts.user),
        ),
        KvmFact::Broken(reason) => (
            format!("/dev/kvm opens, but no guest runs: {reason}"),
            "nothing to do here: where this virtual machine's host allows no nesting, halab emulates".to_owned(),
        ),
    };
    Finding::limited(NAME, Lack::new(what, why, how))
}

fn program(facts: &HostFacts, program: &Program) -> Finding {
    if !facts.missing_programs.contains(&program.name) {
        return Finding::found(program.name, "installed");
    }
    let is_bookworm = facts.os.is_debian() && facts.os.codename == BOOKWORM;
    // qemu-img and QEMU come from one source and must be of one version.
    let from_backports = is_bookworm && program.package == "qemu-utils";
    let fix = Some(Fix::Apt {
        packages: vec![program.package],
        suite: from_backports.then_some(BOOKWORM_BACKPORTS),
    });
    let lack = Lack::new(
        "not installed",
        program.purpose,
        install(facts, fix.as_ref()),
    );
    Finding::missing(program.name, lack).with_fix(offered(facts, fix))
}

fn keyring(facts: &HostFacts) -> Finding {
    const NAME: &str = "Debian's keys";
    if facts.has_debian_keyring {
        return Finding::found(NAME, DEBIAN_KEYRING);
    }
    let fix = Some(Fix::Apt {
        packages: vec!["debian-archive-keyring"],
        suite: None,
    });
    let lack = Lack::new(
        format!("there is no {DEBIAN_KEYRING}"),
        "prove that the image's packages are Debian's",
        install(facts, fix.as_ref()),
    );
    Finding::missing(NAME, lack).with_fix(offered(facts, fix))
}

fn namespaces(facts: &HostFacts) -> Finding {
    const NAME: &str = "namespaces";
    let Err(reason) = &facts.namespaces else {
        let kind = if facts.is_root {
            "network and mount"
        } else {
            "user, network and mount"
        };
        return Finding::found(NAME, kind);
    };
    let why = "each lab has a network of its own, and the image is built out of your way";
    let how = if facts.is_root {
        "run halab where namespaces may be made: on the machine itself, or in a privileged container"
            .to_owned()
    } else if facts.missing_programs.contains(&"newuidmap") {
        "install uidmap first, see newuidmap".to_owned()
    } else if reason.contains("subuid") || reason.contains("subgid") || reason.contains("map-auto")
    {
        format!(
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
            facts.user
        )
    } else if facts.os.id == "ubuntu" {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned()
    } else {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, or run halab as root"
            .to_owned()
    };
    Finding::missing(
        NAME,
        Lack::new(format!("cannot be made: {reason}"), why, how),
    )
}

fn tun(facts: &HostFacts) -> Finding {
    const NAME: &str = "/dev/net/tun";
    let Err(reason) = &facts.tun else {
        return Finding::found(NAME, "opens");
    };
    let how = if facts.is_root {
        "modprobe tun; where there is no device: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"
    } else {
        "sudo modprobe tun && sudo chmod 0666 /dev/net/tun"
    };
    let lack = Lack::new(
        format!("does not open: {reason}"),
        "connects the machines to the lab's network",
        how,
    );
    Finding::missing(NAME, lack)
}

fn memory(facts: &HostFacts) -> Finding {
    const NAME: &str = "memory";
    match facts.memory_bytes {
        None => Finding::found(NAME, "the kernel does not say how much is free"),
        Some(bytes) if bytes >= MEMORY_FOR_LAB_BYTES => {
            Finding::found(NAME, format!("{} free", mebibytes(bytes)))
        }
        Some(bytes) => Finding::limited(
            NAME,
            Lack::new(
                format!(
                    "{} free, the lab takes up to {}",
                    mebibytes(bytes),
                    mebibytes(MEMORY_FOR_LAB_BYTES)
                ),
                "the machines would have to share it with the swap",
                "end other programs, or give the machines less `memory:` in vm/topology.yml",
            ),
        ),
    }
}

fn disk(facts: &HostFacts) -> Finding {
    const NAME: &str = "disk";
    let needed = if facts.image_is_built {
        DISK_FOR_LAB_BYTES
    } else {
        DISK_FOR_BUILD_BYTES
    };
    match facts.disk_bytes {
        None => Finding::found(NAME, "its free space could not be read"),
        Some(bytes) if bytes >= needed => {
            Finding::found(NAME, format!("{} free", mebibytes(bytes)))
        }
        Some(bytes) => Finding::missing(
            NAME,
            Lack::new(
                format!(
                    "{} free for {}, {} are needed",
                    mebibytes(bytes),
                    facts.cache_dir.display(),
                    mebibytes(needed)
                ),
                "holds the image, the machines' disks and their snapshots",
                "free some, or set XDG_CACHE_HOME to a folder on a larger disk",
            ),
        ),
    }
}

fn mebibytes(bytes: u64) -> String {
    if bytes >= 10 << 30 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// A fix is offered where apt is there to carry it out.
fn offered(facts: &HostFacts, fix: Option<Fix>) -> Option<Fix> {
    fix.filter(|_| facts.os.uses_apt())
}

/// Says in one line how to get packages here; `halab doctor --fix` says the same in full.
fn install(facts: &HostFacts, fix: Option<&Fix>) -> String {
    let Some(Fix::Apt { packages, suite }) = fix else {
        return String::new();
    };
    let packages = packages.join(" ");
    if !facts.os.uses_apt() {
        return format!("install what Debian calls {packages}");
    }
    let sudo = if facts.is_root { "" } else { "sudo " };
    let target = suite
        .map(|suite| format!("-t {suite} "))
        .unwrap_or_default();
    format!("{sudo}halab doctor --fix, or: {sudo}apt-get install {target}{packages}")
}

/// What apt has to do so that nothing is missing that packages can bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// A file of sources to write first: path and content.
    pub sources: Option<(&'static str, String)>,
    pub commands: Vec<Vec<String>>,
    pub packages: Vec<&'static str>,
}

/// Plans the repair; `None` where there is nothing that apt could mend.
pub fn repair(findings: &[Finding], os: &OsRelease, sources: &[AptSource]) -> Option<Repair> {
    let mut from_release = Vec::new();
    let mut from_suite = Vec::new();
    let mut beside = None;
    for finding in findings.iter().filter(|finding| finding.is_missing()) {
        let Some(Fix::Apt { packages, suite }) = &finding.fix else {
            continue;
        };
        beside = beside.or(*suite);
        let list = if suite.is_some() {
            &mut from_suite
        } else {
            &mut from_release
        };
        for package in packages {
            if !list.contains(package) {
                list.push(package);
            }
        }
    }
    from_release.retain(|package| !from_suite.contains(package));
    let packages = [from_release.clone(), from_suite.clone()].concat();
    if packages.is_empty() {
        return None;
    }
    let mut commands = vec![apt_get(&["update"])];
    if !from_release.is_empty() {
        commands.push(install_command(&[], &from_release));
    }
    if let Some(suite) = beside {
        commands.push(install_command(&["-t", suite], &from_suite));
    }
    let is_known = |suite: &&str| apt::source_of(sources, suite).is_some();
    Some(Repair {
        sources: beside
            .filter(|suite| !is_known(suite))
            .map(|suite| (BACKPORTS_FILE, backports(suite, os, sources))),
        commands,
        packages,
    })
}

/// A source for the suite on the mirror that the machine already uses, with the keys it already trusts.
fn backports(suite: &str, os: &OsRelease, sources: &[AptSource]) -> String {
    let keys = apt::source_of(sources, &os.codename)
        .and_then(|source| source.signed_by.as_deref())
        .unwrap_or(DEBIAN_KEYRING);
    format!(
        "# Written by `halab doctor --fix`: QEMU of this release is too old for the lab's machines.\n\
         # Only packages asked for by name come from here.\n\
         Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {keys}\n",
        apt::debian_mirror(os, sources)
    )
}

fn install_command(target: &[&str], packages: &[&str]) -> Vec<String> {
    apt_get(
        &[
            &["install", "-y", "--no-install-recommends"],
            target,
            packages,
        ]
        .concat(),
    )
}

/// Waits up to two minutes for another apt: machines update themselves just after they start.
fn apt_get(arguments: &[&str]) -> Vec<String> {
    ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
        .iter()
        .chain(arguments)
        .map(|&word| word.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM_TEXT: &str = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
    const TRIXIE_TEXT: &str = "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n";
    const NOBLE_TEXT: &str =
        "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n";

    fn sound(os: &str) -> HostFacts {
        HostFacts {
            is_root: true,
            user: "root".into(),
            os: OsRelease::parse(os),
            missing_programs: Vec::new(),
            qemu: Some("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)".into()),
            kvm: KvmFact::Works,
            has_debian_keyring: true,
            memory_bytes: Some(8 << 30),
            disk_bytes: Some(50 << 30),
            cache_dir: "/root/.cache/halab".into(),
            image_is_built: false,
            namespaces: Ok(()),
            tun: Ok(()),
        }
    }

    fn fresh(os: &str) -> HostFacts {
        HostFacts {
            missing_programs: vec!["qemu-img", "mmdebstrap", "ip", "tc", "ssh", "ssh-keygen"],
            qemu: None,
            kvm: KvmFact::Absent,
            has_debian_keyring: false,
            ..sound(os)
        }
    }

    fn missing(facts: &HostFacts) -> Vec<&'static str> {
        diagnose(facts)
            .iter()
            .filter(|finding| finding.is_missing())
            .map(|finding| finding.name)
            .collect()
    }

    fn repair_words(facts: &HostFacts, sources: &[AptSource]) -> Vec<String> {
        let repair = repair(&diagnose(facts), &facts.os, sources).expect("something to mend");
        repair
            .commands
            .iter()
            .map(|words| words.join(" "))
            .collect()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text: &str| QemuVersion::parse(text).expect("a version");
        assert!(
            version("QEMU emulator version 10.0.2 (Debian x)")
                > version("QEMU emulator version 9.2.50")
        );
        assert!(version("QEMU emulator version 8.2.2") >= QEMU_MIN_TCG);
        assert!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)") < QEMU_MIN_TCG);
        assert_eq!(version("QEMU emulator version 9.1").micro, 0);
        assert_eq!(QemuVersion::parse("bash: not found"), None);
    }

    #[test]
    fn a_sound_host_lacks_nothing() {
        for os in [BOOKWORM_TEXT, TRIXIE_TEXT, NOBLE_TEXT] {
            assert_eq!(missing(&sound(os)), Vec::<&str>::new());
        }
    }

    #[test]
    fn an_old_qemu_will_do_with_kvm_only() {
        let with_kvm = HostFacts {
            qemu: Some("QEMU emulator version 7.2.22".into()),
            ..sound(BOOKWORM_TEXT)
        };
        let without = HostFacts {
            kvm: KvmFact::Broken("the guest never ran".into()),
            ..with_kvm.clone()
        };
        assert_eq!(missing(&with_kvm), Vec::<&str>::new());
        assert_eq!(missing(&without), ["QEMU"]);
        assert!(
            repair_words(&without, &[])[1]
                .ends_with("-t bookworm-backports qemu-system-x86 qemu-utils")
        );
    }

    #[test]
    fn an_old_qemu_elsewhere_is_not_promised_to_be_mended() {
        let facts = HostFacts {
            qemu: Some("QEMU emulator version 6.2.0".into()),
            kvm: KvmFact::Absent,
            ..sound("ID=ubuntu\nVERSION_CODENAME=jammy\n")
        };
        assert_eq!(repair(&diagnose(&facts), &facts.os, &[]), None);
    }

    #[test]
    fn bookworm_takes_qemu_from_backports_of_its_own_mirror() {
        let sources =
            apt::parse_list("deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main\n");
        let facts = fresh(BOOKWORM_TEXT);
        let repair = repair(&diagnose(&facts), &facts.os, &sources).expect("something to mend");
        let (path, content) = repair.sources.expect("a new source");
        assert_eq!(path, BACKPORTS_FILE);
        assert!(content.ends_with(
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n"
        ));
        let lines: Vec<String> = repair
            .commands
            .iter()
            .map(|words| words.join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "apt-get -o DPkg::Lock::Timeout=120 update",
                "apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends mmdebstrap iproute2 openssh-client debian-archive-keyring",
                "apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends -t bookworm-backports qemu-system-x86 qemu-utils",
            ]
        );
    }

    #[test]
    fn backports_that_are_there_already_are_not_added_again() {
        let sources = apt::parse_list(
            "deb http://m/debian bookworm main\ndeb http://m/debian bookworm-backports main\n",
        );
        let facts = fresh(BOOKWORM_TEXT);
        let repair = repair(&diagnose(&facts), &facts.os, &sources).expect("something to mend");
        assert_eq!(repair.sources, None);
    }

    #[test]
    fn trixie_and_ubuntu_need_one_installation_and_no_new_source() {
        for os in [TRIXIE_TEXT, NOBLE_TEXT] {
            let lines = repair_words(&fresh(os), &[]);
            assert_eq!(lines.len(), 2);
            assert!(lines[1].ends_with(
                "recommends qemu-system-x86 qemu-utils mmdebstrap iproute2 openssh-client debian-archive-keyring"
            ));
        }
    }

    #[test]
    fn without_apt_nothing_is_mended_and_the_packages_are_named() {
        let facts = fresh("ID=fedora\n");
        let findings = diagnose(&facts);
        assert_eq!(repair(&findings, &facts.os, &[]), None);
        let State::Missing(lack) = &findings[0].state else {
            panic!("QEMU is missing");
        };
        assert_eq!(
            lack.how,
            "install what Debian calls qemu-system-x86 qemu-utils"
        );
    }

    #[test]
    fn a_user_without_subordinate_ids_is_told_how_to_get_them() {
        let facts = HostFacts {
            is_root: false,
            user: "ana".into(),
            namespaces: Err("unshare: failed to find a subuid range for ana".into()),
            ..sound(TRIXIE_TEXT)
        };
        let finding = diagnose(&facts)
            .into_iter()
            .find(Finding::is_missing)
            .expect("namespaces are missing");
        let State::Missing(lack) = finding.state else {
            panic!("it is missing");
        };
        assert!(lack.how.ends_with("--add-subgids 100000-165535 ana"));
    }

    #[test]
    fn little_memory_warns_and_a_full_disk_stops() {
        let facts = HostFacts {
            memory_bytes: Some(700 << 20),
            disk_bytes: Some(2 << 30),
            ..sound(TRIXIE_TEXT)
        };
        assert_eq!(missing(&facts), ["disk"]);
        let built = HostFacts {
            image_is_built: true,
            ..facts
        };
        assert_eq!(missing(&built), Vec::<&str>::new());
    }
}
