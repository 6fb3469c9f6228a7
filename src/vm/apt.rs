//! What the host's own system says of itself: its release, and where its packages come from.
//!
//! Reads the texts of `/etc/os-release` and of apt's sources in both of their forms. Whatever
//! halab downloads comes from the mirror that the machine already uses.

/// Where Debian's packages come from when the machine's own apt does not say.
pub const DEFAULT_DEBIAN_MIRROR: &str = "http://deb.debian.org/debian";

/// A system as `/etc/os-release` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `debian`, `ubuntu`, …
    pub id: String,
    /// Systems this one is made from: Linux Mint says `ubuntu debian`.
    pub id_like: Vec<String>,
    /// `12`, `24.04`; empty where there is none.
    pub version: String,
    /// `bookworm`, `noble`; empty where there is none.
    pub codename: String,
    /// For people: "Debian GNU/Linux 12 (bookworm)".
    pub pretty_name: String,
}

impl OsRelease {
    pub fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        Self {
            id: field("ID"),
            id_like: field("ID_LIKE")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            version: field("VERSION_ID"),
            codename: field("VERSION_CODENAME"),
            pretty_name: field("PRETTY_NAME"),
        }
    }

    pub fn is_debian(&self) -> bool {
        self.id == "debian"
    }

    /// Whether packages are installed with apt under Debian's names.
    pub fn uses_apt(&self) -> bool {
        let of_family = |id: &str| id == "debian" || id == "ubuntu";
        of_family(&self.id) || self.id_like.iter().any(|id| of_family(id))
    }
}

/// One line, or one paragraph, of apt's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    pub uris: Vec<String>,
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// The keyring named beside the source, when one is.
    pub signed_by: Option<String>,
}

/// Reads a file of one-line sources (`sources.list`, `*.list`); what is not one is passed over.
pub fn parse_list(text: &str) -> Vec<AptSource> {
    text.lines().filter_map(list_line).collect()
}

fn list_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(AptSource {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned),
    })
}

/// Reads a file of paragraphs (`*.sources`); disabled ones and those without packages are passed over.
pub fn parse_deb822(text: &str) -> Vec<AptSource> {
    let without_comments: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| if line.trim().is_empty() { "" } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    without_comments
        .split("\n\n")
        .filter_map(paragraph)
        .collect()
}

fn paragraph(text: &str) -> Option<AptSource> {
    let field = |name: &str| field_of(text, name);
    let has_packages = field("Types")?.split_whitespace().any(|kind| kind == "deb");
    let is_disabled = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if !has_packages || is_disabled {
        return None;
    }
    let words = |name: &str| -> Vec<String> {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    Some(AptSource {
        uris: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        signed_by: field("Signed-By").filter(|value| value.starts_with('/')),
    })
}

/// Returns a field's value; lines that begin with a space continue it.
fn field_of(paragraph: &str, name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in paragraph.lines() {
        if let Some(value) = &mut value {
            if !line.starts_with([' ', '\t']) {
                break;
            }
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((key, first)) = line.split_once(':')
            && key.eq_ignore_ascii_case(name)
        {
            value = Some(first.trim().to_owned());
        }
    }
    value
}

/// Finds the source of a release's own suite: the machine's mirror of the main archive.
pub fn source_of<'sources>(
    sources: &'sources [AptSource],
    suite: &str,
) -> Option<&'sources AptSource> {
    sources
        .iter()
        .find(|source| source.suites.iter().any(|each| each == suite) && !source.uris.is_empty())
}

/// Picks the mirror of a Debian machine; other systems' mirrors do not carry Debian.
pub fn debian_mirror(os: &OsRelease, sources: &[AptSource]) -> String {
    let stable_names = [os.codename.as_str(), "stable", "oldstable"];
    let own = os.is_debian().then(|| {
        stable_names
            .iter()
            .filter(|suite| !suite.is_empty())
            .find_map(|suite| source_of(sources, suite))
    });
    own.flatten()
        .and_then(|source| source.uris.first())
        .filter(|uri| uri.starts_with("http"))
        .map_or_else(
            || DEFAULT_DEBIAN_MIRROR.to_owned(),
            |uri| uri.trim_end_matches('/').to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    const NOBLE: &str = "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n";

    const DEB822: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb-src\nURIs: http://other.example/debian\nSuites: bookworm\n\nTypes: deb\nEnabled: no\nURIs: http://disabled.example/debian\nSuites: bookworm\n";

    #[test]
    fn releases_are_read() {
        let debian = OsRelease::parse(BOOKWORM);
        assert_eq!(
            (
                debian.id.as_str(),
                debian.codename.as_str(),
                debian.version.as_str()
            ),
            ("debian", "bookworm", "12")
        );
        let ubuntu = OsRelease::parse(NOBLE);
        assert!(ubuntu.uses_apt() && !ubuntu.is_debian());
        assert!(!OsRelease::parse("ID=fedora\n").uses_apt());
        assert!(OsRelease::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n").uses_apt());
    }

    #[test]
    fn the_mirror_is_the_machines_own_in_both_forms() {
        let debian = OsRelease::parse(BOOKWORM);
        let paragraphs = parse_deb822(DEB822);
        assert_eq!(paragraphs.len(), 1);
        assert_eq!(
            debian_mirror(&debian, &paragraphs),
            "http://mirror.example/debian"
        );
        let lines = parse_list(
            "# deb http://no.example/debian bookworm main\n\
             deb-src http://src.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k.gpg] https://list.example/debian bookworm main contrib # x\n",
        );
        assert_eq!(
            debian_mirror(&debian, &lines),
            "https://list.example/debian"
        );
        assert_eq!(lines[0].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn without_a_debian_source_the_default_is_taken() {
        let ubuntu = OsRelease::parse(NOBLE);
        let own = parse_list("deb http://archive.ubuntu.com/ubuntu noble main\n");
        assert_eq!(debian_mirror(&ubuntu, &own), DEFAULT_DEBIAN_MIRROR);
        assert_eq!(
            debian_mirror(&OsRelease::parse(BOOKWORM), &[]),
            DEFAULT_DEBIAN_MIRROR
        );
    }
}
