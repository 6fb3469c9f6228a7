//! authkeys: which signatures are believed, and which one is put on own messages.

use std::sync::Arc;

use super::lines::{Comment, Continued, Grammar, Word, lines};
use crate::base::diagnostic::{Diagnostic, Origin, Source};
use crate::heartbeat::signature::{Key, Method};

/// Highest index of a key; heartbeat keeps a table of 16.
const INDEX_MAX: u8 = 15;

const GRAMMAR: Grammar = Grammar {
    separators: &[' ', '\t'],
    comment: Comment::WholeLine,
    continued: Continued::Never,
};

/// The keys of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthKeys {
    /// Signs what is sent.
    pub signing: Key,
    /// Every key of the file, the signing one included, by rising index.
    pub keys: Vec<Key>,
}

impl AuthKeys {
    pub fn get(&self, index: u8) -> Option<&Key> {
        self.keys.iter().find(|key| key.index == index)
    }
}

/// Reads the file; complaints go to `diagnostics`.
pub fn parse(source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> Option<AuthKeys> {
    let mut auth: Option<(u8, Origin)> = None;
    let mut keys: Vec<(Key, Origin)> = Vec::new();
    for words in lines(source, GRAMMAR) {
        // heartbeat takes any line that begins with an `a` for this one.
        let parsed = if words[0].text.starts_with('a') {
            auth_line(&words, auth.as_ref()).map(|index| {
                if let Some((key, at)) = keys.iter().find(|(key, _)| key.index == index) {
                    diagnostics.push(key_before_auth(key.index, at, &words[0].origin));
                }
                auth = Some((index, words[0].origin.clone()));
            })
        } else {
            key_line(&words, &keys).map(|key| keys.push((key, words[0].origin.clone())))
        };
        if let Err(problem) = parsed {
            diagnostics.push(*problem);
        }
    }
    let Some((index, at)) = auth else {
        diagnostics.push(missing_auth(source, &keys));
        return None;
    };
    let Some((signing, _)) = keys.iter().find(|(key, _)| key.index == index).cloned() else {
        diagnostics.push(
            Diagnostic::error(format!("auth key {index} is not in the file"))
                .at(&at)
                .label("selects a key by its number")
                .help(format!("add a line such as `{index} sha1 SECRET` below it")),
        );
        return None;
    };
    let mut keys: Vec<Key> = keys.into_iter().map(|(key, _)| key).collect();
    keys.sort_by_key(|key| key.index);
    Some(AuthKeys { signing, keys })
}

/// Whoever reads the key can stop the cluster's services, so only root may.
pub fn check_permissions(
    source: &Arc<Source>,
    mode: u32,
    owner: u32,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let name = &source.name;
    // heartbeat looks at the read bits of group and others only.
    if mode & 0o044 != 0 {
        diagnostics.push(
            Diagnostic::error(format!(
                "bad permissions on keyfile {name}: {:03o}, 600 recommended",
                mode & 0o777
            ))
            .help(format!("`chmod 600 {name}`")),
        );
    }
    if owner != 0 {
        diagnostics.push(
            Diagnostic::error(format!(
                "the keyfile {name} belongs to user {owner}, not to root"
            ))
            .help(format!("`chown root {name}`")),
        );
    }
}

/// Has complaints show the file without its secrets: they end in journals and on screens.
pub fn hide_secrets(source: &Arc<Source>, diagnostics: &mut [Diagnostic]) {
    let masked = Source::new(source.name.as_str(), masked(&source.text));
    let mask = |origin: &mut Origin| {
        if Arc::ptr_eq(&origin.source, source) {
            origin.source = Arc::clone(&masked);
        }
    };
    for problem in diagnostics {
        problem.origin.iter_mut().for_each(mask);
        problem.related.iter_mut().for_each(|(at, _)| mask(at));
    }
}

/// Longest word that is shown: `auth` and the methods are shorter, a secret should not be.
const SHOWN_BYTES_MAX: usize = 6;

/// Puts a `*` for each byte of a word that may be a secret, so that places stay the same.
fn masked(text: &str) -> String {
    let mask_line = |line: &str| {
        let mut number = 0;
        let mut out = String::new();
        for part in line.split_inclusive([' ', '\t', '\r']) {
            let word = part.trim_end_matches([' ', '\t', '\r']);
            if !word.is_empty() {
                number += 1;
            }
            if number > 2 || word.len() > SHOWN_BYTES_MAX {
                out.extend(std::iter::repeat_n('*', word.len()));
            } else {
                out.push_str(word);
            }
            out.push_str(&part[word.len()..]);
        }
        out
    };
    let lines: Vec<String> = text.split('\n').map(mask_line).collect();
    lines.join("\n")
}

/// Returns a word of a complaint, unless it is long enough to be a secret in a wrong place.
fn shown(word: &str) -> &str {
    if word.len() > SHOWN_BYTES_MAX {
        "(a long word)"
    } else {
        word
    }
}

fn auth_line(words: &[Word], earlier: Option<&(u8, Origin)>) -> Result<u8, Box<Diagnostic>> {
    if let Some((_, at)) = earlier {
        return Err(Box::new(
            Diagnostic::error("a second `auth` line")
                .at(&words[0].origin)
                .label("again here")
                .related(at, "first here"),
        ));
    }
    match words {
        [name, index] if name.text == "auth" => key_index(index),
        [name, ..] => Err(Box::new(
            Diagnostic::error("this line is no `auth N`")
                .at(&name.origin)
                .label("expected `auth` and the number of a key")
                .nearest(&name.text, ["auth"]),
        )),
        [] => unreachable!("lines without words are left out"),
    }
}

fn key_line(words: &[Word], known: &[(Key, Origin)]) -> Result<Key, Box<Diagnostic>> {
    let index = key_index(&words[0])?;
    if let Some((_, at)) = known.iter().find(|(key, _)| key.index == index) {
        return Err(Box::new(
            Diagnostic::error(format!("key {index} stands twice"))
                .at(&words[0].origin)
                .label("again here")
                .related(at, "first here"),
        ));
    }
    let Some(method) = words.get(1) else {
        return Err(Box::new(
            Diagnostic::error("a key without a method")
                .at(&words[0].origin)
                .help("a key's line is `N sha1 SECRET`, `N md5 SECRET` or `N crc`"),
        ));
    };
    let secret = match &words[2..] {
        [] => None,
        [secret] => Some(secret),
        [_, more, ..] => {
            return Err(Box::new(
                Diagnostic::error("a key of several words")
                    .at(&more.origin)
                    .label("a key is one word"),
            ));
        }
    };
    let text = method.text.to_lowercase();
    let method = match (text.as_str(), secret) {
        ("crc", None) => Method::Crc,
        ("md5", Some(secret)) => Method::Md5(secret.text.clone().into()),
        ("sha1", Some(secret)) => Method::Sha1(secret.text.clone().into()),
        ("crc", Some(secret)) => {
            return Err(Box::new(
                Diagnostic::error("auth method `crc` does not use a key")
                    .at(&secret.origin)
                    .label("leave it out")
                    .help("`crc` finds damage, not forgery; use `sha1` to keep strangers out"),
            ));
        }
        ("md5" | "sha1", None) => {
            return Err(Box::new(
                Diagnostic::error(format!("auth method `{text}` requires a key"))
                    .at(&method.origin)
                    .help(format!(
                        "`{index} {text} SECRET`, the same secret on both nodes"
                    )),
            ));
        }
        _ => {
            return Err(Box::new(
                Diagnostic::error(format!("invalid auth method `{}`", shown(&method.text)))
                    .at(&method.origin)
                    .label("`crc`, `md5` or `sha1`")
                    .nearest(&text, ["crc", "md5", "sha1"]),
            ));
        }
    };
    Ok(Key { index, method })
}

fn key_index(word: &Word) -> Result<u8, Box<Diagnostic>> {
    word.text
        .parse()
        .ok()
        .filter(|index| *index <= INDEX_MAX)
        .ok_or_else(|| {
            Box::new(
                Diagnostic::error(format!(
                    "`{}` is not the number of a key",
                    shown(&word.text)
                ))
                .at(&word.origin)
                .label(format!("a number from 1 to {INDEX_MAX}")),
            )
        })
}

fn key_before_auth(index: u8, key: &Origin, auth: &Origin) -> Diagnostic {
    Diagnostic::error(format!(
        "auth key {index} stands before the `auth` line that selects it"
    ))
    .at(auth)
    .label("too late")
    .related(key, "the key")
    .help("make `auth` the first line: heartbeat reads the file once, from the top")
}

fn missing_auth(source: &Arc<Source>, keys: &[(Key, Origin)]) -> Diagnostic {
    let problem = Diagnostic::error(format!("no `auth` line in {}", source.name));
    match keys.first() {
        Some((key, at)) => problem
            .at(at)
            .help(format!("begin the file with `auth {}`", key.index)),
        None => problem.help("begin the file with `auth 1`, then `1 sha1 SECRET`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::{Colour, render_all};

    fn complaint(text: &str) -> String {
        let mut diagnostics = Vec::new();
        parse(&Source::new("authkeys", text), &mut diagnostics);
        render_all(&diagnostics, Colour::Never)
    }

    #[test]
    fn a_complaint_shows_no_secret() {
        for text in [
            "auth 1\n1 sha1 verysecret\n1 md5 otherone\n",
            "auth 1\n1 verysecret\n",
            "auth 1\nverysecret\n",
            "auth 1\n1 sha1 very secret indeed\n",
            "1 sha1 verysecret\nauth 1\n",
        ] {
            let source = Source::new("authkeys", text);
            let mut diagnostics = Vec::new();
            parse(&source, &mut diagnostics);
            hide_secrets(&source, &mut diagnostics);
            let said = render_all(&diagnostics, Colour::Never);
            assert!(said.contains("authkeys:"), "{said}");
            for secret in ["very", "secret", "other", "indeed"] {
                assert!(!said.contains(secret), "{said}");
            }
        }
    }

    #[test]
    fn several_keys_and_one_that_signs() {
        let mut diagnostics = Vec::new();
        let keys = parse(
            &Source::new(
                "authkeys",
                "# keys\nauth 3\n3 sha1 secret\n1 crc\n2 md5 x\n",
            ),
            &mut diagnostics,
        )
        .expect("valid keys");
        assert_eq!(diagnostics, []);
        assert_eq!(keys.signing.method, Method::Sha1("secret".into()));
        assert_eq!(keys.get(1).map(|key| &key.method), Some(&Method::Crc));
    }

    #[test]
    fn each_mistake_has_its_words() {
        for (text, expected) in [
            ("", "begin the file with `auth 1`"),
            ("auth 1\n", "auth key 1 is not in the file"),
            ("1 crc\nauth 1\n", "stands before the `auth` line"),
            ("auth 1\n1 crc x\n", "does not use a key"),
            ("auth 1\n1 md5\n", "auth method `md5` requires a key"),
            ("auth 1\n1 sha256 x\n", "did you mean `sha1`?"),
            ("auth 1\n1 sha1 a b\n", "a key is one word"),
            ("auth 16\n", "a number from 1 to 15"),
            ("auth 1\n1 crc\n1 md5 x\n", "key 1 stands twice"),
            ("auth 1\nauth 2\n1 crc\n", "a second `auth` line"),
            ("auth\n1 crc\n", "this line is no `auth N`"),
        ] {
            let said = complaint(text);
            assert!(said.contains(expected), "{text:?}: {said}");
        }
    }
}
