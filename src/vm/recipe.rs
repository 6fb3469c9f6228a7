//! The image's recipe: what the machines' disk is made of, read from `vm/image.yml`.
//!
//! The recipe is data and its reading is pure: text in, a [`Recipe`] that can be built or all of
//! its problems out. [`Recipe::hash`] names the image in the cache, and [`setup_script`] is what
//! turns a freshly installed system into the recipe's. Building is [`super::image`]'s.

use std::fmt;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::base::diagnostic::{Diagnostic, Source};
use crate::base::yaml::{self, Kind, Node};

/// Part of every image's hash: raised when the way an image is built changes what is in it.
const BUILDER_GENERATION: u32 = 1;

/// Largest disk a recipe may ask for; more is a typing error, not a lab.
const SIZE_BYTES_MAX: u64 = 64 << 30;

/// Smallest disk: what the system alone fills, with room for a log or two.
const SIZE_BYTES_MIN: u64 = 1 << 30;

/// A recipe that can be built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// Debian's name for the release: `trixie`.
    pub suite: String,
    /// Where packages come from. Without one: what the host's own apt uses.
    pub mirror: Option<String>,
    pub packages: Vec<String>,
    /// Shell patterns of paths that no package installs.
    pub exclude: Vec<String>,
    /// The whole disk's size, in bytes.
    pub size: u64,
    pub filesystem: Filesystem,
    /// The kernel's path inside the image.
    pub kernel: String,
    /// The initrd's path inside the image.
    pub initrd: String,
    pub files: Vec<RecipeFile>,
    pub units: Units,
    /// Shell commands, run inside the system after packages, files and units.
    pub commands: Vec<String>,
    /// Shell patterns of paths removed at the end.
    pub remove: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filesystem {
    Ext4,
}

impl fmt::Display for Filesystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ext4 => "ext4",
        })
    }
}

/// A file the recipe writes itself, owned by root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecipeFile {
    pub path: String,
    /// Permission bits; 0644 unless said.
    pub mode: u32,
    pub content: String,
}

/// What happens to systemd's units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Units {
    pub enable: Vec<String>,
    pub disable: Vec<String>,
    pub mask: Vec<String>,
}

impl Recipe {
    /// Reads a recipe, reporting all of its problems at once.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Vec<Diagnostic>> {
        let root = yaml::parse(source).map_err(|problem| vec![problem])?;
        let mut reader = Reader::default();
        let recipe = reader.recipe(&root);
        match recipe {
            Some(recipe) if reader.problems.is_empty() => Ok(recipe),
            _ => Err(reader.problems),
        }
    }

    /// Names the image: the same for the same content, on every machine and in every release.
    ///
    /// The mirror is left out, as a package is the same wherever it came from.
    pub fn hash(&self) -> String {
        let mut hasher = Fnv1a::default();
        BUILDER_GENERATION.hash(&mut hasher);
        let content = Self {
            mirror: None,
            ..self.clone()
        };
        Hash::hash(&content, &mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// FNV-1a: the standard library's hasher may change with the compiler, an image's name must not.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Stands before each of the recipe's commands in the output of the script that runs them.
pub const COMMAND_MARK: &str = "halab: ";

/// Returns the shell script that makes the recipe's system of the one at `"$1"`.
///
/// The recipe's files are expected beside it, named by their position: `"$2"/0`, `"$2"/1`, …
pub fn setup_script(recipe: &Recipe) -> String {
    let mut script =
        String::from("set -eu\nroot=$1 files=$2\nexport DEBIAN_FRONTEND=noninteractive\n");
    for (position, file) in recipe.files.iter().enumerate() {
        writeln!(
            script,
            "install -D -o root -g root -m {:04o} \"$files/{position}\" \"$root\"{}",
            file.mode,
            quote(&file.path)
        )
        .expect("a string takes all that is written");
    }
    for (verb, units) in [
        ("enable", &recipe.units.enable),
        ("disable", &recipe.units.disable),
        ("mask", &recipe.units.mask),
    ] {
        if !units.is_empty() {
            let names: Vec<String> = units.iter().map(|unit| quote(unit)).collect();
            writeln!(
                script,
                "chroot \"$root\" systemctl --quiet {verb} {}",
                names.join(" ")
            )
            .expect("a string takes all that is written");
        }
    }
    for command in &recipe.commands {
        writeln!(
            script,
            "echo {}\nchroot \"$root\" sh -euc {}",
            quote(&format!("{COMMAND_MARK}{}", first_line(command))),
            quote(command)
        )
        .expect("a string takes all that is written");
    }
    for pattern in &recipe.remove {
        writeln!(
            script,
            "chroot \"$root\" sh -c {}",
            quote(&format!("rm -rf {pattern}"))
        )
        .expect("a string takes all that is written");
    }
    script
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Writes a word so that a POSIX shell reads it back unchanged.
pub fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./@%+=:,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

const KEYS: [&str; 12] = [
    "suite",
    "mirror",
    "packages",
    "exclude",
    "size",
    "filesystem",
    "kernel",
    "initrd",
    "files",
    "units",
    "commands",
    "remove",
];

#[derive(Default)]
struct Reader {
    problems: Vec<Diagnostic>,
}

impl Reader {
    /// `None` means that something needed is missing; the problems then say what.
    fn recipe(&mut self, root: &Node) -> Option<Recipe> {
        if root.as_map().is_none() {
            self.problem(
                root,
                "an image's recipe is a mapping",
                "expected `suite:`, `packages:`, …",
            );
            return None;
        }
        self.refuse_unknown_keys(root, &KEYS);
        let suite = self
            .required(root, "suite")
            .and_then(|node| self.word(node, "a Debian release such as `trixie`", is_package_like));
        let mirror = root.get("mirror").and_then(|node| {
            self.word(
                node,
                "an address such as http://deb.debian.org/debian",
                is_mirror,
            )
        });
        let packages = self
            .required(root, "packages")
            .map(|node| self.words(node, "a package's name", is_package_like));
        let size = self.required(root, "size").and_then(|node| self.size(node));
        let filesystem = self
            .required(root, "filesystem")
            .and_then(|node| self.filesystem(node));
        let kernel = self
            .required(root, "kernel")
            .and_then(|node| self.word(node, "an absolute path", is_plain_path));
        let initrd = self
            .required(root, "initrd")
            .and_then(|node| self.word(node, "an absolute path", is_plain_path));
        let exclude =
            self.optional_words(root, "exclude", "an absolute path or pattern", is_pattern);
        let remove = self.optional_words(root, "remove", "an absolute path or pattern", is_pattern);
        let commands = self.optional_words(root, "commands", "a shell command", |text| {
            !text.trim().is_empty()
        });
        let files = self.files(root.get("files"));
        let units = self.units(root.get("units"));
        Some(Recipe {
            suite: suite?,
            mirror,
            packages: packages?,
            exclude,
            size: size?,
            filesystem: filesystem?,
            kernel: kernel?,
            initrd: initrd?,
            files,
            units,
            commands,
            remove,
        })
    }

    fn problem(&mut self, node: &Node, message: impl Into<String>, label: impl Into<String>) {
        self.problems
            .push(Diagnostic::error(message).at(&node.origin).label(label));
    }

    fn refuse_unknown_keys(&mut self, map: &Node, known: &[&'static str]) {
        for (key, _) in map.as_map().unwrap_or_default() {
            let name = key.key_text();
            if !known.contains(&name.as_str()) {
                self.problems.push(
                    Diagnostic::error(format!("unknown key `{name}`"))
                        .at(&key.origin)
                        .nearest(&name, known.iter().copied())
                        .help(format!("known here: {}", known.join(", "))),
                );
            }
        }
    }

    fn required<'node>(&mut self, map: &'node Node, key: &str) -> Option<&'node Node> {
        let found = map.get(key);
        if found.is_none() {
            let mut start = map.origin.clone();
            start.end = start.start;
            self.problems
                .push(Diagnostic::error(format!("`{key}:` is missing")).at(&start));
        }
        found
    }

    fn word(&mut self, node: &Node, expected: &str, is_valid: fn(&str) -> bool) -> Option<String> {
        match node.as_str() {
            Some(text) if is_valid(text) => Some(text.to_owned()),
            Some(text) => {
                let label = format!("expected {expected}");
                self.problem(node, format!("`{text}` is not {expected}"), label);
                None
            }
            None => {
                let message = format!("expected {expected}, found {}", node.kind_name());
                self.problem(node, message, "");
                None
            }
        }
    }

    fn words(&mut self, node: &Node, expected: &str, is_valid: fn(&str) -> bool) -> Vec<String> {
        let Some(items) = node.as_seq() else {
            let message = format!("expected a list, found {}", node.kind_name());
            self.problem(node, message, format!("each item is {expected}"));
            return Vec::new();
        };
        let mut words: Vec<String> = Vec::new();
        for item in items {
            let Some(word) = self.word(item, expected, is_valid) else {
                continue;
            };
            if words.contains(&word) {
                self.problem(
                    item,
                    format!("`{}` stands twice", first_line(&word)),
                    "again here",
                );
            } else {
                words.push(word);
            }
        }
        words
    }

    fn optional_words(
        &mut self,
        map: &Node,
        key: &str,
        expected: &str,
        is_valid: fn(&str) -> bool,
    ) -> Vec<String> {
        match map.get(key) {
            Some(node) if !node.is_null() => self.words(node, expected, is_valid),
            _ => Vec::new(),
        }
    }

    fn size(&mut self, node: &Node) -> Option<u64> {
        let size = node.as_str().and_then(parse_size);
        match size {
            Some(size) if (SIZE_BYTES_MIN..=SIZE_BYTES_MAX).contains(&size) => Some(size),
            Some(_) => {
                self.problem(
                    node,
                    "the disk is too small or too large",
                    "expected 1 GiB to 64 GiB",
                );
                None
            }
            None => {
                self.problem(
                    node,
                    "this is not a size",
                    "expected a number with a unit, such as `4 GiB`",
                );
                None
            }
        }
    }

    fn filesystem(&mut self, node: &Node) -> Option<Filesystem> {
        if node.as_str() == Some("ext4") {
            return Some(Filesystem::Ext4);
        }
        self.problem(
            node,
            "unknown file system",
            "the image's file system is `ext4`",
        );
        None
    }

    fn files(&mut self, node: Option<&Node>) -> Vec<RecipeFile> {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return Vec::new();
        };
        let Some(items) = node.as_seq() else {
            let message = format!("expected a list of files, found {}", node.kind_name());
            self.problem(node, message, "each with `path:` and `content:`");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.file(item)).collect()
    }

    fn file(&mut self, item: &Node) -> Option<RecipeFile> {
        if item.as_map().is_none() {
            self.problem(
                item,
                "a file is a mapping",
                "with `path:`, `content:` and perhaps `mode:`",
            );
            return None;
        }
        self.refuse_unknown_keys(item, &["path", "content", "mode"]);
        let path = self
            .required(item, "path")
            .and_then(|node| self.word(node, "an absolute path", is_plain_path));
        let content = self
            .required(item, "content")
            .and_then(|node| self.word(node, "text", |_| true));
        let mode = match item.get("mode") {
            None => Some(0o644),
            Some(node) => self.mode(node),
        };
        Some(RecipeFile {
            path: path?,
            mode: mode?,
            content: content?,
        })
    }

    fn mode(&mut self, node: &Node) -> Option<u32> {
        let mode = match &node.kind {
            Kind::Int(mode) => u32::try_from(*mode).ok(),
            Kind::Str(text) => u32::from_str_radix(text, 8).ok(),
            _ => None,
        };
        let mode = mode.filter(|mode| *mode <= 0o7777);
        if mode.is_none() {
            self.problem(
                node,
                "this is not a file mode",
                "expected octal digits, such as 0644",
            );
        }
        mode
    }

    fn units(&mut self, node: Option<&Node>) -> Units {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return Units::default();
        };
        if node.as_map().is_none() {
            self.problem(
                node,
                "units are a mapping",
                "with `enable:`, `disable:` and `mask:`",
            );
            return Units::default();
        }
        self.refuse_unknown_keys(node, &["enable", "disable", "mask"]);
        let expected = "a unit's full name, such as `ssh.service`";
        Units {
            enable: self.optional_words(node, "enable", expected, is_unit),
            disable: self.optional_words(node, "disable", expected, is_unit),
            mask: self.optional_words(node, "mask", expected, is_unit),
        }
    }
}

/// Debian's rule for package names, which release names keep too.
fn is_package_like(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text
            .chars()
            .all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || "+-.".contains(each))
}

fn is_mirror(text: &str) -> bool {
    ["http://", "https://", "file:/", "copy:/"]
        .iter()
        .any(|scheme| text.starts_with(scheme) && text.len() > scheme.len())
        && !text.contains(|each: char| each.is_whitespace() || each.is_control())
}

fn is_plain_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() > 1
        && !text.ends_with('/')
        && text.split('/').all(|part| part != "..")
        && !text.contains(|each: char| each.is_control())
}

/// A path for the shell to expand: nothing in it may end the word or start another command.
fn is_pattern(text: &str) -> bool {
    is_plain_path(text)
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || "/._-*?[]@+:".contains(each))
}

fn is_unit(text: &str) -> bool {
    const KINDS: [&str; 8] = [
        "service",
        "socket",
        "timer",
        "mount",
        "automount",
        "target",
        "path",
        "slice",
    ];
    text.rsplit_once('.')
        .is_some_and(|(name, kind)| !name.is_empty() && KINDS.contains(&kind))
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || "-_.@:\\".contains(each))
}

/// Reads "4 GiB": a whole number and a binary unit.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|each: char| each.is_ascii_alphabetic() || each == ' ');
    let shift = match text[digits.len()..].trim() {
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../vm/image.yml");

    fn parse(text: &str) -> Result<Recipe, Vec<Diagnostic>> {
        Recipe::parse(&Source::new("image.yml", text))
    }

    fn shipped() -> Recipe {
        parse(SHIPPED).expect("the recipe that halab brings along is valid")
    }

    #[test]
    fn the_shipped_recipe_has_what_the_labs_text_calls() {
        let recipe = shipped();
        for package in [
            "ipvsadm",
            "heartbeat",
            "drbd-utils",
            "apache2",
            "net-tools",
            "psmisc",
        ] {
            assert!(
                recipe.packages.iter().any(|name| name == package),
                "{package}"
            );
        }
        assert_eq!(recipe.size, 4 << 30);
    }

    #[test]
    fn the_name_follows_the_content_and_not_the_comments_or_the_mirror() {
        let recipe = shipped();
        let commented = parse(&format!("# another word\n{SHIPPED}")).expect("valid");
        let elsewhere = parse(&format!(
            "{SHIPPED}\nmirror: http://mirror.example/debian\n"
        ));
        let mut changed = recipe.clone();
        changed.commands.push("true".into());
        assert_eq!(recipe.hash(), commented.hash());
        assert_eq!(recipe.hash(), elsewhere.expect("valid").hash());
        assert_ne!(recipe.hash(), changed.hash());
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_line() {
        let problems = parse(
            "suite: Trixie!\n\
             packges: [a]\n\
             packages: [ok-package, 'not ok', ok-package]\n\
             size: 4 potatoes\n\
             filesystem: zfs\n\
             kernel: boot/vmlinuz\n\
             files: [{path: /etc/../x, content: y}, {path: /a, content: b, mode: 99999}]\n\
             units: {mask: [ssh]}\n\
             remove: ['/etc/x; reboot']\n",
        )
        .expect_err("nothing in it is right");
        let lines: Vec<(usize, &str)> = problems
            .iter()
            .map(|problem| {
                let origin = problem.origin.as_ref().expect("a place");
                (origin.line(), problem.message.as_str())
            })
            .collect();
        assert_eq!(
            lines,
            [
                (2, "unknown key `packges`"),
                (1, "`Trixie!` is not a Debian release such as `trixie`"),
                (3, "`not ok` is not a package's name"),
                (3, "`ok-package` stands twice"),
                (4, "this is not a size"),
                (5, "unknown file system"),
                (6, "`boot/vmlinuz` is not an absolute path"),
                (1, "`initrd:` is missing"),
                (9, "`/etc/x; reboot` is not an absolute path or pattern"),
                (7, "`/etc/../x` is not an absolute path"),
                (7, "this is not a file mode"),
                (8, "`ssh` is not a unit's full name, such as `ssh.service`"),
            ]
        );
    }

    #[test]
    fn the_script_installs_then_switches_then_runs_then_removes() {
        let recipe = Recipe {
            files: vec![RecipeFile {
                path: "/etc/it's".into(),
                mode: 0o600,
                content: "x".into(),
            }],
            units: Units {
                mask: vec!["a.timer".into(), "b.mount".into()],
                ..Units::default()
            },
            commands: vec!["echo 'x y'".into()],
            remove: vec!["/etc/ssh/ssh_host_*".into()],
            ..shipped()
        };
        assert_eq!(
            setup_script(&recipe),
            r#"set -eu
root=$1 files=$2
export DEBIAN_FRONTEND=noninteractive
install -D -o root -g root -m 0600 "$files/0" "$root"'/etc/it'\''s'
chroot "$root" systemctl --quiet mask a.timer b.mount
echo 'halab: echo '\''x y'\'''
chroot "$root" sh -euc 'echo '\''x y'\'''
chroot "$root" sh -c 'rm -rf /etc/ssh/ssh_host_*'
"#
        );
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(parse_size("4 GiB"), Some(4 << 30));
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("4"), None);
        assert_eq!(parse_size("4 GB"), None);
        assert_eq!(parse_size("99999999999999 GiB"), None);
    }
}
