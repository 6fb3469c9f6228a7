//! What was typed, as drbd-utils takes it: `drbdadm [OPTION…] COMMAND [OPTION…] NAME…`,
//! and the older `drbdadm -- OPTION… COMMAND NAME…`.

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Print what would be done.
    pub dry_run: bool,
    pub config: Option<String>,
    /// Stacked resources are asked for; there are none here.
    pub stacked: bool,
    pub command: String,
    /// Options of the command, with their values.
    pub options: Vec<String>,
    pub names: Vec<String>,
}

/// Why a call makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    #[error("drbdadm: unrecognized option '{0}'\ntry 'drbdadm help'")]
    UnknownOption(String),
    #[error("drbdadm: option '{0}' requires an argument\ntry 'drbdadm help'")]
    NoValue(String),
}

/// General options that take a value and that change nothing here.
const IGNORED_WITH_VALUE: &[&str] = &[
    "-t",
    "--config-to-test",
    "-s",
    "--drbdsetup",
    "-m",
    "--drbdmeta",
    "-p",
    "--drbd-proxy-ctl",
    "-n",
    "--sh-varname",
    "-P",
    "--peer",
];

/// Options that come with a command: (command, options). Those of attach and connect are
/// the configuration's.
const OPTIONS: &[(&str, &[&str])] = &[
    (
        "create-md",
        &["--force", "--al-stripes", "--al-stripe-size-kB"],
    ),
    ("wipe-md", &["--force"]),
    ("detach", &["--force"]),
    (
        "connect",
        &["--discard-my-data", "--tentative", "--dry-run"],
    ),
    ("disconnect", &["--force"]),
    ("primary", &["--force", "--overwrite-data-of-peer"]),
    ("verify", &["--start", "--stop"]),
    (
        "resize",
        &["--size", "--assume-peer-has-space", "--assume-clean"],
    ),
    ("new-current-uuid", &["--clear-bitmap"]),
    ("status", &["--verbose", "--statistics", "--color"]),
    (
        "wait-connect",
        &[
            "--wfc-timeout",
            "--degr-wfc-timeout",
            "--outdated-wfc-timeout",
            "--wait-after-sb",
        ],
    ),
    (
        "wait-sync",
        &[
            "--wfc-timeout",
            "--degr-wfc-timeout",
            "--outdated-wfc-timeout",
            "--wait-after-sb",
        ],
    ),
    ("wait-con-int", &[]),
    ("up", &["--discard-my-data"]),
];

impl Words {
    pub(super) fn parse(words: &[String]) -> Result<Self, WordsError> {
        let mut parsed = Self::default();
        let mut backend = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name, Some(value)),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                let next = || words.next().map(String::as_str);
                let missing = || WordsError::NoValue(name.to_owned());
                value.or_else(next).map(str::to_owned).ok_or_else(missing)
            };
            match name {
                "--" => backend = true,
                _ if !word.starts_with('-') || word == "-" => {
                    if parsed.command.is_empty() {
                        parsed.command.clone_from(word);
                    } else {
                        parsed.names.push(word.clone());
                    }
                }
                _ if backend || !parsed.command.is_empty() => parsed.options.push(word.clone()),
                "-d" | "--dry-run" => parsed.dry_run = true,
                "-c" | "--config-file" => parsed.config = Some(value()?),
                "-S" | "--stacked" => parsed.stacked = true,
                "-v" | "--verbose" => {}
                "-V" | "--version" => "--version".clone_into(&mut parsed.command),
                "-h" | "--help" => "help".clone_into(&mut parsed.command),
                "-W" | "--setup-option" => parsed.options.push(value()?),
                name if IGNORED_WITH_VALUE.contains(&name) => drop(value()?),
                _ => return Err(WordsError::UnknownOption(word.clone())),
            }
        }
        if parsed.options.iter().any(|option| option == "-d") {
            parsed.options.retain(|option| option != "-d");
            parsed.dry_run = true;
        }
        parsed.known_options()?;
        Ok(parsed)
    }

    fn known_options(&self) -> Result<(), WordsError> {
        let known = OPTIONS
            .iter()
            .find(|(command, _)| *command == self.command)
            .map_or(&[][..], |(_, options)| options);
        let unknown = self.options.iter().find(|option| {
            let name = option
                .split_once('=')
                .map_or(option.as_str(), |(name, _)| name);
            !known.contains(&name) && name != "-f"
        });
        unknown.map_or(Ok(()), |option| {
            Err(WordsError::UnknownOption(option.clone()))
        })
    }

    /// Whether an option is there and is not `=no`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options
            .iter()
            .any(|option| option == name || *option == format!("{name}=yes"))
    }

    pub(super) fn is_forced(&self) -> bool {
        self.has("--force") || self.has("-f") || self.has("--overwrite-data-of-peer")
    }

    /// Returns the value of `--name=VALUE`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}=");
        self.options
            .iter()
            .find_map(|option| option.strip_prefix(&prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Words, WordsError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Words::parse(&words)
    }

    #[test]
    fn both_ways_of_writing_an_option_mean_the_same() {
        let old = parsed("-- --overwrite-data-of-peer primary r0").expect("the text's line");
        assert_eq!(old.command, "primary");
        assert_eq!(old.names, ["r0"]);
        assert!(old.is_forced());
        let new = parsed("primary --force r0").expect("today's line");
        assert!(new.is_forced());
        assert!(
            parsed("-- --discard-my-data connect r0")
                .expect("a line")
                .has("--discard-my-data")
        );
        let verify = parsed("verify --start=100 r0").expect("a line");
        assert_eq!(verify.value("--start"), Some("100"));
    }

    #[test]
    fn general_options_come_before_the_command() {
        let words = parsed("-d -c /tmp/x.conf up all").expect("a line");
        assert!(words.dry_run);
        assert_eq!(words.config.as_deref(), Some("/tmp/x.conf"));
        assert_eq!(
            (words.command.as_str(), &words.names[..]),
            ("up", &["all".to_owned()][..])
        );
        assert_eq!(parsed("-c"), Err(WordsError::NoValue("-c".to_owned())));
    }

    #[test]
    fn an_option_that_the_command_has_not_is_refused() {
        assert_eq!(
            parsed("primary --foo r0"),
            Err(WordsError::UnknownOption("--foo".to_owned()))
        );
        assert_eq!(
            parsed("--foo primary r0"),
            Err(WordsError::UnknownOption("--foo".to_owned()))
        );
    }
}
