//! `~`, `$NAME` and `${NAME}` in paths and command words, as Ansible expands them.

/// Expands a text; what is not known stays as it was written.
pub fn expand(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
    home_of: impl Fn(&str) -> Option<String>,
) -> String {
    variables(&home(text, home_of), variable)
}

/// Replaces a leading `~` or `~user`; the own home is that of the empty name.
fn home(text: &str, home_of: impl Fn(&str) -> Option<String>) -> String {
    let Some(rest) = text.strip_prefix('~') else {
        return text.to_owned();
    };
    let (user, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match home_of(user) {
        Some(home) => format!("{}{path}", home.trim_end_matches('/')),
        None => text.to_owned(),
    }
}

fn variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, length) = if let Some(braced) = after.strip_prefix('{') {
            let end = braced.find('}').unwrap_or(0);
            (&braced[..end], end + 2)
        } else {
            let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
            let end = after.find(|char| !is_name(char)).unwrap_or(after.len());
            (&after[..end], end)
        };
        if let Some(value) = variable(name).filter(|_| !name.is_empty()) {
            result.push_str(&value);
            rest = &after[length..];
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(text: &str) -> String {
        let variable = |name: &str| (name == "A").then(|| "x/y".to_owned());
        let home = |user: &str| match user {
            "" => Some("/root".to_owned()),
            "ann" => Some("/home/ann/".to_owned()),
            _ => None,
        };
        expand(text, variable, home)
    }

    #[test]
    fn known_names_are_filled_in_and_others_stay() {
        assert_eq!(expanded("~/a"), "/root/a");
        assert_eq!(expanded("~ann/b"), "/home/ann/b");
        assert_eq!(expanded("~eve/b"), "~eve/b");
        assert_eq!(expanded("/$A/${A}z/$AB/$"), "/x/y/x/yz/$AB/$");
        assert_eq!(expanded("a~"), "a~");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[~$/{}Aé]{0,12}") {
            let _ = expanded(&text);
        }
    }
}
