//! Permission bits as written (`0644`, `u=rw,g+X`, `a-w`) and what they make of a file's.

use std::fmt;

/// The bits chmod can set: set-id, sticky, and the three triples.
pub const MODE_MASK: u32 = 0o7777;

/// Permission bits wanted: absolute, or changes to what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Octal(u32),
    /// In the order written.
    Symbolic(Vec<Clause>),
}

/// One `who` `operator` `permissions` of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Any of [`USER`], [`GROUP`], [`OTHER`].
    who: u32,
    operator: Operator,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Set,
    Add,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// `rwxXst`: read, write and execute as one octal digit, and the special ones.
    Bits {
        triple: u32,
        execute_if_any: bool,
        set_id: bool,
        sticky: bool,
    },
    /// What user, group or others have now.
    CopyOf(u32),
}

const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
const ALL: u32 = 0o777;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeError {
    Empty,
    OutOfRange,
    /// Neither octal nor `who`, operator, permissions; with the first character that does not fit.
    Unexpected(char),
    NoOperator(String),
}

impl fmt::Display for ModeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("nothing was given"),
            Self::OutOfRange => formatter.write_str("octal 7777 is the largest"),
            Self::Unexpected(found) => write!(formatter, "`{found}` has no meaning there"),
            Self::NoOperator(clause) => write!(formatter, "`{clause}` has no =, + or -"),
        }
    }
}

impl Mode {
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ModeError::Empty);
        }
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::parse_octal(digits);
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            clauses.extend(parse_clause(clause)?);
        }
        Ok(Self::Symbolic(clauses))
    }

    fn parse_octal(digits: &str) -> Result<Self, ModeError> {
        if let Some(foreign) = digits.chars().find(|digit| !('0'..='7').contains(digit)) {
            return Err(ModeError::Unexpected(foreign));
        }
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if bits <= MODE_MASK => Ok(Self::Octal(bits)),
            _ => Err(ModeError::OutOfRange),
        }
    }

    /// Returns the bits a file has afterwards. `umask` counts where a clause names nobody.
    pub fn applied(&self, current: u32, kind: FileKind, umask: u32) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => clauses.iter().fold(current & MODE_MASK, |bits, clause| {
                clause.applied(bits, kind, umask)
            }),
        }
    }
}

/// What `X` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    Other,
}

impl Clause {
    fn applied(self, current: u32, kind: FileKind, umask: u32) -> u32 {
        let who = if self.who == 0 { ALL } else { self.who };
        let masked_by = if self.who == 0 { umask & ALL } else { 0 };
        let wanted = self.wanted(who, current, kind) & !masked_by;
        match self.operator {
            Operator::Add => current | wanted,
            Operator::Remove => current & !wanted,
            Operator::Set => (current & !(who | special_of(who))) | wanted,
        }
    }

    /// Returns the bits the clause speaks of, in their places.
    fn wanted(self, who: u32, current: u32, kind: FileKind) -> u32 {
        match self.permissions {
            Permissions::CopyOf(from) => {
                let triple = (current & from) >> from.trailing_zeros();
                (triple * 0o111) & who
            }
            Permissions::Bits {
                mut triple,
                execute_if_any,
                set_id,
                sticky,
            } => {
                if execute_if_any && (kind == FileKind::Directory || current & 0o111 != 0) {
                    triple |= 0o1;
                }
                let mut bits = (triple * 0o111) & who;
                if set_id {
                    bits |= special_of(who) & 0o6000;
                }
                if sticky {
                    bits |= special_of(who) & 0o1000;
                }
                bits
            }
        }
    }
}

/// Returns the special bits that belong to these triples.
fn special_of(who: u32) -> u32 {
    let set_user = if who & USER != 0 { 0o4000 } else { 0 };
    let set_group = if who & GROUP != 0 { 0o2000 } else { 0 };
    let sticky = if who & OTHER != 0 { 0o1000 } else { 0 };
    set_user | set_group | sticky
}

/// Reads `who` and one or more operators with permissions: `u=rw`, `go-w+x`.
fn parse_clause(clause: &str) -> Result<Vec<Clause>, ModeError> {
    let first = clause
        .find(['=', '+', '-'])
        .ok_or_else(|| ModeError::NoOperator(clause.to_owned()))?;
    let mut who = 0;
    for letter in clause[..first].chars() {
        who |= triple_of(letter).ok_or(ModeError::Unexpected(letter))?;
    }
    let mut clauses = Vec::new();
    let mut rest = &clause[first..];
    while let Some(symbol) = rest.chars().next() {
        let operator = match symbol {
            '=' => Operator::Set,
            '+' => Operator::Add,
            _ => Operator::Remove,
        };
        let end = rest[1..]
            .find(['=', '+', '-'])
            .map_or(rest.len(), |at| at + 1);
        clauses.push(Clause {
            who,
            operator,
            permissions: parse_permissions(&rest[1..end])?,
        });
        rest = &rest[end..];
    }
    Ok(clauses)
}

fn triple_of(letter: char) -> Option<u32> {
    match letter {
        'u' => Some(USER),
        'g' => Some(GROUP),
        'o' => Some(OTHER),
        'a' => Some(ALL),
        _ => None,
    }
}

fn parse_permissions(text: &str) -> Result<Permissions, ModeError> {
    if let "u" | "g" | "o" = text {
        let from = text.chars().next().and_then(triple_of).unwrap_or(ALL);
        return Ok(Permissions::CopyOf(from));
    }
    let mut triple = 0;
    let (mut execute_if_any, mut set_id, mut sticky) = (false, false, false);
    for letter in text.chars() {
        match letter {
            'r' => triple |= 0o4,
            'w' => triple |= 0o2,
            'x' => triple |= 0o1,
            'X' => execute_if_any = true,
            's' => set_id = true,
            't' => sticky = true,
            other => return Err(ModeError::Unexpected(other)),
        }
    }
    Ok(Permissions::Bits {
        triple,
        execute_if_any,
        set_id,
        sticky,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(text: &str, current: u32) -> u32 {
        let mode = Mode::parse(text).expect("valid");
        mode.applied(current, FileKind::Other, 0o022)
    }

    #[test]
    fn octal_is_taken_as_it_is() {
        assert_eq!(after("0644", 0o777), 0o644);
        assert_eq!(after("1777", 0), 0o1777);
        assert_eq!(after("0o600", 0), 0o600);
        assert_eq!(Mode::parse("0888"), Err(ModeError::Unexpected('8')));
        assert_eq!(Mode::parse("77777"), Err(ModeError::OutOfRange));
    }

    #[test]
    fn symbolic_clauses_apply_in_order() {
        assert_eq!(after("u=rw,g=r,o=", 0o777), 0o640);
        assert_eq!(after("a+x", 0o644), 0o755);
        assert_eq!(after("go-rwx", 0o755), 0o700);
        assert_eq!(after("u=rwx,g=u,o-w", 0o002), 0o770);
        assert_eq!(after("g+s,o+t", 0o755), 0o3755);
        assert_eq!(after("u+rw-x", 0o100), 0o600);
    }

    #[test]
    fn nobody_named_means_everybody_less_the_umask() {
        assert_eq!(after("+w", 0o444), 0o644);
    }

    #[test]
    fn a_capital_x_is_for_directories_and_what_is_executable() {
        let mode = Mode::parse("a+X").expect("valid");
        assert_eq!(mode.applied(0o644, FileKind::Other, 0), 0o644);
        assert_eq!(mode.applied(0o744, FileKind::Other, 0), 0o755);
        assert_eq!(mode.applied(0o600, FileKind::Directory, 0), 0o711);
    }

    proptest! {
        #[test]
        fn every_octal_is_reached_symbolically(bits in 0u32..0o1000, current in 0u32..0o10000) {
            let triple = |shift: u32| {
                let digit = bits >> shift & 7;
                let letters = [(4, 'r'), (2, 'w'), (1, 'x')];
                letters.iter().filter(|(bit, _)| digit & bit != 0).map(|(_, letter)| *letter).collect::<String>()
            };
            let text = format!("u={},g={},o={}", triple(6), triple(3), triple(0));
            prop_assert_eq!(after(&text, current) & 0o777, bits);
        }

        #[test]
        fn arbitrary_text_never_panics_and_twice_is_once(text in "[ugoa=+rwxXst,0-9-]{0,10}", current in 0u32..0o10000) {
            if let Ok(mode) = Mode::parse(&text) {
                let once = mode.applied(current, FileKind::Other, 0o022);
                prop_assert!(once <= MODE_MASK);
            }
        }
    }
}
