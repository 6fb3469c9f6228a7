//! Do two nodes have the same haresources? heartbeat does not ask, and goes wrong in silence.
//!
//! When a node takes part it says a short digest of each line (`t=halab-haresources lines=…`); one
//! of ours compares and says so aloud, any other heartbeat ignores a message of a type it has no
//! script for. A digest and not the line, for arguments of resources may be secret.

use super::config::Group;
use super::signature::digest_of;

/// The message's type.
pub const KIND: &str = "halab-haresources";

/// Digits of a line's digest: enough to tell a cluster's few lines apart.
const DIGITS: usize = 12;

/// Returns each line's digest, blanks and comments aside.
pub fn digests(groups: &[Group]) -> String {
    let digests: Vec<String> = groups.iter().map(|group| digest(&group.line())).collect();
    digests.join(" ")
}

fn digest(line: &str) -> String {
    let mut digest = digest_of(line.as_bytes());
    digest.truncate(DIGITS);
    digest
}

/// Returns in words what differs from the other node's lines; nothing when all are the same.
pub fn difference(groups: &[Group], other: &str, theirs: &str) -> Option<String> {
    let theirs: Vec<&str> = theirs.split_whitespace().collect();
    let ours: Vec<String> = groups.iter().map(|group| digest(&group.line())).collect();
    let lone = groups
        .iter()
        .zip(&ours)
        .find(|(_, digest)| !theirs.contains(&digest.as_str()));
    let strangers = theirs
        .iter()
        .filter(|digest| ours.iter().all(|own| own != *digest))
        .count();
    let what = match (lone, strangers) {
        (None, 0) => return None,
        (Some((group, _)), _) => format!(
            "{other} has no such line as {}: `{}`",
            group.owner.origin,
            group.line()
        ),
        (None, 1) => format!("{other} has a line that is not here"),
        (None, count) => format!("{other} has {count} lines that are not here"),
    };
    Some(format!(
        "haresources differs between the nodes: {what}; copy one file to both and restart heartbeat"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::heartbeat::config::haresources;

    fn groups(text: &str) -> Vec<Group> {
        haresources::parse(&Source::new("/etc/ha.d/haresources", text), &mut Vec::new()).groups
    }

    #[test]
    fn blanks_and_comments_make_no_difference() {
        let ours = groups("a 10.0.0.50 apache2\n");
        let theirs = digests(&groups("# shared\nA  10.0.0.50 \\\n apache2\n"));
        assert_eq!(difference(&ours, "b", &theirs), None);
    }

    #[test]
    fn a_difference_is_told_with_its_place() {
        let ours = groups("a 10.0.0.51\na 10.0.0.50 apache2\n");
        let theirs = digests(&groups("a 10.0.0.51\na 10.0.0.50 nginx\n"));
        let said = difference(&ours, "b", &theirs).expect("they differ");
        assert!(said.contains("/etc/ha.d/haresources:2:1"), "{said}");
        assert!(said.contains("`a 10.0.0.50 apache2`"), "{said}");
        let more = digests(&groups("a 10.0.0.51\na 10.0.0.50 apache2\nb 10.0.0.52\n"));
        let said = difference(&ours, "b", &more).expect("they differ");
        assert!(said.contains("b has a line that is not here"), "{said}");
    }
}
