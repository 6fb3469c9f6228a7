//! How a host is reached, from its variables and the play's keywords (pure).

use std::path::PathBuf;

use serde_json::Value;

use super::keyword;

/// What decides how a host is reached and as whom; hosts reached alike share a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connection {
    /// `ssh`, `local`, or nothing: whatever the host pool takes by default.
    pub kind: Option<String>,
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub key_file: Option<PathBuf>,
    pub extra_args: Vec<String>,
    /// The agent must be root, and the login may not be.
    pub privileged: bool,
}

/// Variables of Ansible's inventories that say how a host is reached.
pub const VARIABLES: &[&str] = &[
    "ansible_connection",
    "ansible_host",
    "ansible_ssh_host",
    "ansible_port",
    "ansible_ssh_port",
    "ansible_user",
    "ansible_ssh_user",
    "ansible_ssh_private_key_file",
    "ansible_private_key_file",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
];

impl Connection {
    /// Takes one variable in; later ones do not overwrite.
    pub fn set(&mut self, variable: &str, value: &Value) -> Result<(), String> {
        let text = || match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match variable {
            "ansible_connection" | "connection" => {
                let kind = match text().as_str() {
                    "ssh" | "smart" | "paramiko" | "openssh" => "ssh",
                    "local" => "local",
                    other => {
                        return Err(format!(
                            "the connection `{other}` is not taken; `ssh` and `local` are"
                        ));
                    }
                };
                self.kind.get_or_insert_with(|| kind.to_owned());
            }
            "ansible_host" | "ansible_ssh_host" => {
                self.address.get_or_insert_with(text);
            }
            "ansible_port" | "ansible_ssh_port" | "port" => {
                let port = keyword::integer(value)
                    .and_then(|port| u16::try_from(port).ok())
                    .ok_or_else(|| format!("`{variable}` must be a port, found {}", text()))?;
                self.port.get_or_insert(port);
            }
            "ansible_user" | "ansible_ssh_user" | "remote_user" => {
                self.user.get_or_insert_with(text);
            }
            "ansible_ssh_private_key_file" | "ansible_private_key_file" => {
                self.key_file.get_or_insert_with(|| PathBuf::from(text()));
            }
            "ansible_ssh_common_args" | "ansible_ssh_extra_args" => {
                let words = split_words(&text())
                    .ok_or_else(|| format!("`{variable}` has a quote that is not closed"))?;
                self.extra_args.extend(words);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits as a shell does, without expanding anything; `None`: a quote is left open.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(each) = characters.next() {
        match (quote, each) {
            (None, each) if each.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(each);
                word.get_or_insert_default();
            }
            (Some(open), each) if each == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (_, each) => word.get_or_insert_default().push(each),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_beat_the_keywords_that_come_after() {
        let mut connection = Connection::default();
        for (name, value) in [
            ("ansible_user", json!("lab")),
            ("remote_user", json!("root")),
            ("ansible_port", json!("2222")),
            ("ansible_ssh_common_args", json!("-o A=b -C")),
        ] {
            connection.set(name, &value).expect("taken");
        }
        assert_eq!(connection.user.as_deref(), Some("lab"));
        assert_eq!(connection.port, Some(2222));
        assert_eq!(connection.extra_args, ["-o", "A=b", "-C"]);
    }

    #[test]
    fn arguments_are_split_as_a_shell_splits_them() {
        let words = split_words(r#"-o ProxyCommand="ssh -W %h:%p gate" -o 'A=b c' \ d"#);
        let expected = ["-o", "ProxyCommand=ssh -W %h:%p gate", "-o", "A=b c", " d"];
        assert_eq!(words.as_deref(), Some(&expected.map(str::to_owned)[..]));
        assert_eq!(split_words("'open"), None);
    }

    #[test]
    fn another_connection_is_refused_by_name() {
        let error = Connection::default().set("ansible_connection", &json!("winrm"));
        assert!(error.is_err_and(|message| message.contains("winrm")));
    }
}
