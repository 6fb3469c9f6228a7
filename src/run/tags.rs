//! Which tasks `--tags` and `--skip-tags` leave.

/// What was typed; empty lists select everything but `never`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub only: Vec<String>,
    pub skip: Vec<String>,
}

impl Selection {
    /// Decides as Ansible does: `always` and `never` are special as tags, `all`, `tagged`
    /// and `untagged` as selectors.
    pub fn takes(&self, tags: &[String]) -> bool {
        let has = |tag: &str| tags.iter().any(|own| own == tag);
        let meets = |selectors: &[String]| match tags {
            [] => selectors.iter().any(|each| each == "untagged"),
            tags => tags.iter().any(|tag| selectors.contains(tag)),
        };
        let asks = |selectors: &[String], word: &str| selectors.iter().any(|each| each == word);
        let tagged = !tags.is_empty();
        let everything = self.only.is_empty() || asks(&self.only, "all");
        let taken = has("always")
            || (everything && !has("never"))
            || meets(&self.only)
            || (asks(&self.only, "tagged") && tagged && !has("never"));
        let left_out = if asks(&self.skip, "all") {
            !has("always") || asks(&self.skip, "always")
        } else {
            meets(&self.skip) || (asks(&self.skip, "tagged") && tagged)
        };
        taken && !left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn takes(only: &str, skip: &str, tags: &str) -> bool {
        let selection = Selection {
            only: words(only),
            skip: words(skip),
        };
        selection.takes(&words(tags))
    }

    #[test]
    fn selection_is_ansibles() {
        // (only, skip, the task's tags, taken)
        let cases = [
            ("", "", "", true),
            ("", "", "never", false),
            ("setup", "", "", false),
            ("setup", "", "setup", true),
            ("setup", "", "always", true),
            ("teardown", "", "never teardown", true),
            ("never", "", "never teardown", true),
            ("", "setup", "setup", false),
            ("", "setup", "", true),
            ("tagged", "", "x", true),
            ("tagged", "", "", false),
            ("untagged", "", "", true),
            ("untagged", "", "x", false),
            ("all", "", "x", true),
            ("all", "x", "x", false),
            ("", "all", "always", true),
            ("", "always", "always", false),
            ("", "tagged", "x", false),
        ];
        for (only, skip, tags, expected) in cases {
            assert_eq!(takes(only, skip, tags), expected, "{only}|{skip}|{tags}");
        }
    }
}
