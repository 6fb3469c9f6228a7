//! Files as text: bytes that are no UTF-8 survive an edit unchanged.

use std::borrow::Cow;

/// A file's content, ready to be edited as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub content: String,
    encoding: Encoding,
}

/// How bytes and characters correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    /// One character a byte, for files that are no UTF-8.
    Bytes,
}

impl Text {
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(content) => Self {
                content,
                encoding: Encoding::Utf8,
            },
            Err(error) => Self {
                content: error.as_bytes().iter().copied().map(char::from).collect(),
                encoding: Encoding::Bytes,
            },
        }
    }

    pub fn empty() -> Self {
        Self::from_bytes(Vec::new())
    }

    /// Returns an argument's text in the file's own characters.
    pub fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.encoding {
            Encoding::Utf8 => Cow::Borrowed(text),
            Encoding::Bytes => text.bytes().map(char::from).collect(),
        }
    }

    /// Returns the bytes of an edited content.
    pub fn bytes_of(&self, content: &str) -> Vec<u8> {
        match self.encoding {
            Encoding::Utf8 => content.as_bytes().to_vec(),
            Encoding::Bytes => content
                .chars()
                .map(|char| u8::try_from(char).unwrap_or(b'?'))
                .collect(),
        }
    }
}

/// Splits into lines, each with its newline.
pub fn lines_of(content: &str) -> Vec<Cow<'_, str>> {
    content.split_inclusive('\n').map(Cow::Borrowed).collect()
}

/// Returns a line without what ends it.
pub fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Returns whether bytes look like anything but text; such differences are not shown.
pub fn looks_binary(bytes: &[u8]) -> bool {
    // As much as Ansible looks at.
    const LOOKED_AT: usize = 8192;
    bytes.iter().take(LOOKED_AT).any(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_the_way_through_text(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let text = Text::from_bytes(bytes.clone());
            prop_assert_eq!(text.bytes_of(&text.content), bytes);
            prop_assert_eq!(lines_of(&text.content).concat(), text.content);
        }

        #[test]
        fn an_argument_lands_in_a_foreign_file_as_its_own_bytes(argument in ".*") {
            let text = Text::from_bytes(vec![0xff, b'\n']);
            prop_assert_eq!(text.bytes_of(&text.foreign(&argument)), argument.as_bytes());
        }
    }
}
