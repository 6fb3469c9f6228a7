//! Shell patterns for names: `*`, `?`, `[a-z]`, `[!0-9]`.

/// Returns whether the text is more than a plain name.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Returns whether a name matches; as in a shell, a leading dot has to be written out.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    matches_anything(pattern, name)
}

/// The same without the rule about dots, as Python's `fnmatch`.
pub fn matches_anything(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where the last star stood and how far the name was then: it may take one more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let matched = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern, p, name[n]),
            Some(char) => (*char == name[n]).then_some(p + 1),
            None => None,
        };
        if let Some(next) = matched {
            p = next;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|char| *char == '*')
}

/// Matches a character class; returns where the pattern goes on. An open bracket that
/// is never closed stands for itself.
fn class(pattern: &[char], start: usize, char: char) -> Option<usize> {
    let is_negated = matches!(pattern.get(start + 1), Some('!' | '^'));
    let first = start + 1 + usize::from(is_negated);
    let close = (first + 1..pattern.len()).find(|&at| pattern[at] == ']');
    let Some(close) = close else {
        return (char == '[').then_some(start + 1);
    };
    let members = &pattern[first..close];
    let mut found = false;
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            found |= (members[at]..=members[at + 2]).contains(&char);
            at += 3;
        } else {
            found |= members[at] == char;
            at += 1;
        }
    }
    (found != is_negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(matches("*.conf", "a.conf"));
        assert!(!matches("*.conf", ".a.conf"));
        assert!(matches_anything("*.conf", ".a.conf"));
        assert!(matches("a?[0-9][!x]", "ab3y"));
        assert!(!matches("a?[0-9][!x]", "ab3x"));
        assert!(matches("[a", "[a"));
        assert!(matches("**a*b*", "xxaxxbxx"));
        assert!(!matches("a*b", "acbd"));
    }

    proptest! {
        #[test]
        fn every_name_matches_itself_and_a_star(name in "[a-z.]{0,8}", pattern in "[a*?\\[\\]!-]{0,8}") {
            prop_assert!(matches_anything(&name, &name));
            prop_assert!(matches_anything("*", &name));
            let _ = matches_anything(&pattern, &name);
        }
    }
}
