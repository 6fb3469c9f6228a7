//! How an image is built, as values: the commands, their scripts, and what their output tells.
//!
//! mmdebstrap installs the packages into a folder and lets the recipe's script finish the system;
//! `mke2fs -d` makes a file system of that folder without mounting anything. Both run in a mount
//! and PID namespace of their own, so that a builder killed at any moment leaves neither mounts
//! nor processes; for an ordinary user in a user namespace too, in which file owners are kept by
//! the user's subordinate ids. [`super::image`] runs what is planned here.

use std::path::{Path, PathBuf};

use super::doctor::DEBIAN_KEYRING;
use super::progress::Progress;
use super::recipe::{COMMAND_MARK, Recipe, quote};

/// Whose rights a build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    Root,
    /// An ordinary user with subordinate user and group ids.
    User,
}

/// Where one build keeps its things: all of it below the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPaths {
    /// What the finished image is renamed from.
    pub work: PathBuf,
    /// Downloaded packages, kept from a failed build for the next one.
    pub packages: PathBuf,
}

impl BuildPaths {
    pub fn root(&self) -> PathBuf {
        self.work.join("root")
    }

    /// The recipe's files, named by their position.
    pub fn files(&self) -> PathBuf {
        self.work.join("files")
    }

    pub fn setup(&self) -> PathBuf {
        self.work.join("setup.sh")
    }

    pub fn raw_disk(&self) -> PathBuf {
        self.work.join("disk.raw")
    }

    pub fn disk(&self) -> PathBuf {
        self.work.join("base.qcow2")
    }

    pub fn kernel(&self) -> PathBuf {
        self.work.join("vmlinuz")
    }

    pub fn initrd(&self) -> PathBuf {
        self.work.join("initrd")
    }
}

/// Puts a command into namespaces that end with it, and lets it end when halab does.
///
/// `setpriv` asks the kernel to kill the command when its parent dies, however that happens;
/// `unshare --kill-child` carries that on to the first process of the PID namespace, with which
/// all others in it die. Standard error joins standard output: one log in the order of events.
pub fn confined(builder: Builder, command: Vec<String>) -> Vec<String> {
    let mut words = strings(&[
        "sh",
        "-c",
        "exec \"$@\" 2>&1",
        "sh",
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
    ]);
    if builder == Builder::User {
        words.extend(strings(&["--user", "--map-root-user", "--map-auto"]));
    }
    words.push("--".into());
    words.extend(command);
    words
}

/// Installs the recipe's packages into a folder and finishes the system there.
///
/// Mode `unshare` with the rights of root, which both builders have inside their namespaces,
/// mounts nothing that outlives it and makes no device nodes, which only real root could.
pub fn install(recipe: &Recipe, mirror: &str, paths: &BuildPaths) -> Vec<String> {
    let archives = "\"$1\"/var/cache/apt/archives";
    let packages = quote_path(&paths.packages);
    let mut words = strings(&[
        "mmdebstrap",
        "--mode=unshare",
        "--variant=minbase",
        "--format=directory",
        "--verbose",
        // A build that is cut short is thrown away, and a whole one is written out at its end: until
        // then dpkg need not wait for the disk after each package.
        "--dpkgopt=force-unsafe-io",
        // The downloads stay for the next try; the mount hides them from the image.
        "--skip=essential/unlink,cleanup/apt/cache",
    ]);
    words.push(format!("--include={}", recipe.packages.join(",")));
    words.extend(
        recipe
            .exclude
            .iter()
            .map(|pattern| format!("--dpkgopt=path-exclude={pattern}")),
    );
    words.push(format!(
        "--setup-hook=mkdir -p {archives} && mount --bind {packages} {archives}"
    ));
    words.push(format!(
        "--customize-hook=sh {} \"$1\" {}",
        quote_path(&paths.setup()),
        quote_path(&paths.files())
    ));
    words.push(format!("--customize-hook=umount {archives}"));
    words.push(recipe.suite.clone());
    words.push(text(&paths.root()));
    words.push(format!(
        "deb [signed-by={DEBIAN_KEYRING}] {mirror} {} main",
        recipe.suite
    ));
    words
}

/// Makes a file system of the installed folder, and takes kernel and initrd out of it.
///
/// Nothing is initialised lazily: a machine that is idle writes nothing, and its snapshot is small.
pub fn pack(recipe: &Recipe, paths: &BuildPaths) -> Vec<String> {
    let script = "set -eu
root=$1 kernel=$2 kernel_to=$3 initrd=$4 initrd_to=$5 disk=$6 type=$7 blocks=$8
cp --dereference \"$root$kernel\" \"$kernel_to\"
cp --dereference \"$root$initrd\" \"$initrd_to\"
chmod 0644 \"$kernel_to\" \"$initrd_to\"
mke2fs -q -F -t \"$type\" -m 0 -L halab -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 -d \"$root\" \"$disk\" \"$blocks\"
rm -rf \"$root\"";
    let mut words = strings(&["sh", "-c", script, "sh"]);
    words.extend([
        text(&paths.root()),
        recipe.kernel.clone(),
        text(&paths.kernel()),
        recipe.initrd.clone(),
        text(&paths.initrd()),
        text(&paths.raw_disk()),
        recipe.filesystem.to_string(),
        format!("{}k", recipe.size / 1024),
    ]);
    words
}

/// Makes the disk that the machines' overlays rest on.
pub fn convert(paths: &BuildPaths) -> Vec<String> {
    let mut words = strings(&["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]);
    words.extend([text(&paths.raw_disk()), text(&paths.disk())]);
    words
}

/// Removes what a build left; its files may belong to ids that only its namespace may touch.
pub fn discard(work: &Path) -> Vec<String> {
    let mut words = strings(&["rm", "-rf", "--"]);
    words.push(text(work));
    words
}

/// What an installation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallStep {
    /// Something of another kind than before.
    Phase(String),
    /// The next package, or the next command, of the same kind.
    Detail(String),
}

impl InstallStep {
    pub fn text(&self) -> &str {
        match self {
            Self::Phase(text) | Self::Detail(text) => text,
        }
    }

    /// Shows the step as a part of something larger.
    pub fn show(&self, progress: &dyn Progress, subject: &str) {
        match self {
            Self::Phase(text) => progress.step(&format!("{subject}: {text}")),
            Self::Detail(text) => progress.detail(&format!("{subject}: {text}")),
        }
    }
}

/// Follows apt's output package by package.
#[derive(Debug, Default)]
pub struct PackageLog {
    /// The kind of work last named.
    kind: &'static str,
    packages: usize,
    fetched: usize,
    unpacked: usize,
    configured: usize,
}

impl PackageLog {
    /// Takes a line; returns what it begins, when it begins something.
    pub fn line(&mut self, line: &str) -> Option<InstallStep> {
        if let Some(count) = newly_installed(line) {
            self.packages += count;
            return None;
        }
        if line.starts_with("Get:") {
            // A list of packages has a size there, a package its name.
            let package = line.split_whitespace().nth(4)?;
            if package.starts_with('[') || self.packages == 0 {
                return None;
            }
            self.fetched += 1;
            return Some(self.counted("downloading", package, self.fetched));
        }
        if let Some(rest) = line.strip_prefix("Unpacking ") {
            self.unpacked += 1;
            return Some(self.counted("unpacking", package_name(rest)?, self.unpacked));
        }
        let rest = line.strip_prefix("Setting up ")?;
        self.configured += 1;
        Some(self.counted("setting up", package_name(rest)?, self.configured))
    }

    fn counted(&mut self, verb: &'static str, package: &str, done: usize) -> InstallStep {
        // apt names its total in more than one run; a count beyond it would only confuse.
        let text = if done <= self.packages {
            format!("{verb} {package} ({done} of {})", self.packages)
        } else {
            format!("{verb} {package}")
        };
        step_of_kind(&mut self.kind, verb, text)
    }
}

/// Follows mmdebstrap's output, apt's and the recipe's commands within it.
#[derive(Debug, Default)]
pub struct InstallLog {
    kind: &'static str,
    packages: PackageLog,
}

impl InstallLog {
    /// Takes a line; returns what it begins, when it begins something.
    pub fn line(&mut self, line: &str) -> Option<InstallStep> {
        if let Some(milestone) = line.strip_prefix("I: ") {
            return milestone_step(milestone);
        }
        if let Some(command) = line.strip_prefix(COMMAND_MARK) {
            let text = format!("finishing the system: {command}");
            return Some(step_of_kind(&mut self.kind, "finishing", text));
        }
        if self.kind.is_empty() {
            self.packages.line(line)
        } else {
            None
        }
    }
}

fn milestone_step(milestone: &str) -> Option<InstallStep> {
    let text = match milestone.trim_end_matches('.') {
        "running apt-get update" => "reading the lists of packages",
        "downloading packages with apt" => "choosing packages",
        "extracting archives" => "unpacking the base system",
        _ => return None,
    };
    Some(InstallStep::Phase(text.to_owned()))
}

/// A new kind of work is a phase, the rest of it details.
fn step_of_kind(last: &mut &'static str, kind: &'static str, text: String) -> InstallStep {
    if *last == kind {
        return InstallStep::Detail(text);
    }
    *last = kind;
    InstallStep::Phase(text)
}

/// Reads apt's "0 upgraded, 57 newly installed, 0 to remove and 0 not upgraded."
fn newly_installed(line: &str) -> Option<usize> {
    let (before, _) = line.split_once(" newly installed")?;
    before.rsplit(' ').next()?.parse().ok()
}

fn package_name(rest: &str) -> Option<&str> {
    let name = rest.split_whitespace().next()?;
    Some(name.split(':').next().unwrap_or(name))
}

/// Says what to do about a failed build, where its last lines tell the cause.
pub fn advice(tail: &str) -> Option<&'static str> {
    const CAUSES: [(&str, &str); 10] = [
        (
            "enough free space",
            "the disk is full: a build needs about 2 GiB below the cache folder",
        ),
        (
            "No space left on device",
            "the disk is full: a build needs about 2 GiB below the cache folder",
        ),
        (
            "Disk quota exceeded",
            "the disk quota is used up: a build needs about 2 GiB below the cache folder",
        ),
        (
            "Temporary failure resolving",
            "the mirror's name cannot be resolved: check this machine's network",
        ),
        (
            "Could not resolve",
            "the mirror's name cannot be resolved: check this machine's network",
        ),
        (
            "Could not connect",
            "the mirror cannot be reached: check this machine's network, or name another mirror in vm/image.yml",
        ),
        (
            "Unable to connect",
            "the mirror cannot be reached: check this machine's network, or name another mirror in vm/image.yml",
        ),
        (
            "NO_PUBKEY",
            "the release's signing key is unknown here: install debian-archive-keyring",
        ),
        (
            "Unable to locate package",
            "the release has no such package: check `packages:` in vm/image.yml",
        ),
        (
            "uid_map",
            "user namespaces do not work for this user: `halab doctor` says what is missing",
        ),
    ];
    CAUSES
        .iter()
        .find(|(sign, _)| tail.contains(sign))
        .map(|(_, advice)| *advice)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_mmdebstrap_becomes_phases_and_details() {
        let mut log = InstallLog::default();
        let said: Vec<InstallStep> = [
            "I: running apt-get update...",
            "Get:1 http://deb.debian.org/debian trixie InRelease [140 kB]",
            "I: downloading packages with apt...",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Get:1 http://deb.debian.org/debian trixie/main amd64 apache2 amd64 2.4 [1 kB]",
            "I: extracting archives...",
            "I: installing remaining packages inside the chroot...",
            "Unpacking libc6:amd64 (2.41) ...",
            "Setting up apache2 (2.4) ...",
            "Setting up libc6:amd64 (2.41) ...",
            "Setting up surplus (1) ...",
            "halab: depmod",
        ]
        .iter()
        .filter_map(|line| log.line(line))
        .collect();
        let phase = |text: &str| InstallStep::Phase(text.into());
        let detail = |text: &str| InstallStep::Detail(text.into());
        assert_eq!(
            said,
            [
                phase("reading the lists of packages"),
                phase("choosing packages"),
                phase("downloading apache2 (1 of 2)"),
                phase("unpacking the base system"),
                phase("unpacking libc6 (1 of 2)"),
                phase("setting up apache2 (1 of 2)"),
                detail("setting up libc6 (2 of 2)"),
                detail("setting up surplus"),
                phase("finishing the system: depmod"),
            ]
        );
    }

    #[test]
    fn a_user_builds_in_a_user_namespace_and_root_does_not() {
        let command = || vec!["true".to_owned()];
        let user = confined(Builder::User, command()).join(" ");
        let root = confined(Builder::Root, command()).join(" ");
        assert!(user.ends_with("--user --map-root-user --map-auto -- true"));
        assert!(root.ends_with("--kill-child=KILL -- true"));
    }

    #[test]
    fn a_cache_folder_with_a_space_stays_one_word() {
        let paths = BuildPaths {
            work: "/c c/w".into(),
            packages: "/c c/p".into(),
        };
        let recipe = Recipe::parse(&crate::base::diagnostic::Source::new(
            "image.yml",
            include_str!("../../vm/image.yml"),
        ))
        .expect("valid");
        let words = install(&recipe, "http://m/", &paths);
        assert!(
            words.contains(
                &"--customize-hook=sh '/c c/w/setup.sh' \"$1\" '/c c/w/files'".to_owned()
            )
        );
        assert_eq!(
            &words[words.len() - 3..],
            [
                "trixie",
                "/c c/w/root",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/ trixie main"
            ]
        );
    }

    #[test]
    fn a_full_disk_and_a_dead_network_are_told_apart() {
        let full = advice("dpkg: error: No space left on device");
        let offline = advice("Err:1 Temporary failure resolving 'deb.debian.org'");
        assert!(full.is_some_and(|text| text.contains("2 GiB")));
        assert!(offline.is_some_and(|text| text.contains("network")));
        assert_eq!(advice("something else"), None);
    }
}
