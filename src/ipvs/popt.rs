//! A command line cut into options and arguments by the rules of the popt library, which
//! ipvsadm's users have in their fingers.
//!
//! Long options are written in full (`--scheduler rr`, `--scheduler=rr`), short ones may be
//! joined (`-Ln`) and take the rest of the word or the next word as their value (`-srr`,
//! `-s rr`). Options and arguments mix freely; `--` ends the options.

use std::collections::VecDeque;

/// What stands behind an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Required,
    /// Left out when the next word begins with `-`.
    Optional,
}

/// One option; `K` says which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec<K> {
    pub(super) long: Option<&'static str>,
    pub(super) short: Option<char>,
    pub(super) value: Value,
    pub(super) key: K,
}

/// A word that is no option here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoptError {
    pub(super) word: String,
    pub(super) reason: &'static str,
}

/// Gives out one option after another; what is none is put aside for
/// [`arguments`](Self::arguments).
#[derive(Debug)]
pub(super) struct Options<'a, K> {
    specs: &'a [Spec<K>],
    words: VecDeque<String>,
    /// The word last taken, for messages.
    word: String,
    /// What is left of a word of joined short options.
    joined: Option<String>,
    arguments: Vec<String>,
}

impl<'a, K: Copy> Options<'a, K> {
    pub(super) fn new(specs: &'a [Spec<K>], words: &[String]) -> Self {
        Self {
            specs,
            words: words.iter().cloned().collect(),
            word: String::new(),
            joined: None,
            arguments: Vec::new(),
        }
    }

    /// Returns the next option with its value, `None` at the end.
    pub(super) fn next_option(&mut self) -> Result<Option<(K, Option<String>)>, PoptError> {
        loop {
            if let Some(joined) = self.joined.take() {
                return self.short_option(&joined).map(Some);
            }
            let Some(word) = self.words.pop_front() else {
                return Ok(None);
            };
            self.word.clone_from(&word);
            if word == "--" {
                self.arguments.extend(self.words.drain(..));
            } else if let Some(long) = word.strip_prefix("--") {
                return self.long_option(long).map(Some);
            } else if word.len() > 1 && word.starts_with('-') {
                self.joined = Some(word[1..].to_owned());
            } else {
                self.arguments.push(word);
            }
        }
    }

    /// The words that were no options, once all options have been taken.
    pub(super) fn arguments(self) -> Vec<String> {
        self.arguments
    }

    fn long_option(&mut self, text: &str) -> Result<(K, Option<String>), PoptError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let spec = self
            .specs
            .iter()
            .find(|spec| spec.long == Some(name))
            .copied();
        let spec = spec.ok_or_else(|| self.error("unknown option"))?;
        match (spec.value, value) {
            (Value::None, Some(_)) => Err(self.error("option does not take an argument")),
            (Value::None, None) => Ok((spec.key, None)),
            (_, Some(value)) => Ok((spec.key, Some(value))),
            (wanted, None) => Ok((spec.key, self.next_word(wanted)?)),
        }
    }

    fn short_option(&mut self, joined: &str) -> Result<(K, Option<String>), PoptError> {
        let mut rest = joined.chars();
        let name = rest.next();
        let spec = self
            .specs
            .iter()
            .find(|spec| spec.short.is_some() && spec.short == name);
        let spec = *spec.ok_or_else(|| self.error("unknown option"))?;
        let rest = rest.as_str();
        if spec.value == Value::None {
            self.joined = (!rest.is_empty()).then(|| rest.to_owned());
            return Ok((spec.key, None));
        }
        if rest.is_empty() {
            return Ok((spec.key, self.next_word(spec.value)?));
        }
        Ok((
            spec.key,
            Some(rest.strip_prefix('=').unwrap_or(rest).to_owned()),
        ))
    }

    fn next_word(&mut self, wanted: Value) -> Result<Option<String>, PoptError> {
        match (wanted, self.words.front()) {
            (Value::Optional, Some(word)) if word.starts_with('-') => Ok(None),
            (Value::Optional, None) => Ok(None),
            (_, None) => Err(self.error("missing argument")),
            (_, Some(word)) => {
                self.word.clone_from(word);
                Ok(self.words.pop_front())
            }
        }
    }

    fn error(&self, reason: &'static str) -> PoptError {
        PoptError {
            word: self.word.clone(),
            reason,
        }
    }

    /// The word the last option came from.
    pub(super) fn word(&self) -> &str {
        &self.word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec<char>] = &[
        Spec {
            long: Some("list"),
            short: Some('L'),
            value: Value::None,
            key: 'L',
        },
        Spec {
            long: Some("numeric"),
            short: Some('n'),
            value: Value::None,
            key: 'n',
        },
        Spec {
            long: Some("scheduler"),
            short: Some('s'),
            value: Value::Required,
            key: 's',
        },
        Spec {
            long: Some("persistent"),
            short: Some('p'),
            value: Value::Optional,
            key: 'p',
        },
    ];

    /// The options in one line, then the arguments, or the error.
    fn read(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut options = Options::new(SPECS, &words);
        let mut out = String::new();
        loop {
            match options.next_option() {
                Ok(Some((key, value))) => {
                    out.push(key);
                    out.push_str(&value.map_or(String::new(), |value| format!("={value}")));
                    out.push(' ');
                }
                Ok(None) => return out + &options.arguments().join(","),
                Err(error) => return format!("{}: {}", error.word, error.reason),
            }
        }
    }

    #[test]
    fn joined_and_long_options_are_told_apart() {
        assert_eq!(read("-Ln"), "L n ");
        assert_eq!(
            read("-Lsrr -s=wrr -s -p --scheduler=lc"),
            "L s=rr s=wrr s=-p s=lc "
        );
        assert_eq!(read("a -L b -- -n"), "L a,b,-n");
        assert_eq!(read("- -L"), "L -");
    }

    #[test]
    fn an_optional_value_is_no_option() {
        assert_eq!(
            read("-p 300 -p -n -p300 --persistent= -p"),
            "p=300 p n p=300 p= p "
        );
    }

    #[test]
    fn the_word_and_the_reason_are_said() {
        assert_eq!(read("-Lq"), "-Lq: unknown option");
        assert_eq!(read("--sched rr"), "--sched: unknown option");
        assert_eq!(
            read("--numeric=3"),
            "--numeric=3: option does not take an argument"
        );
        assert_eq!(read("-L -s"), "-s: missing argument");
    }
}
