//! A program against a text: one way after the other, back to the last choice where it ends.
//!
//! Choices lie on a stack of their own, so that a long text needs memory and no deep calls; only
//! what is looked at by itself (`(?=…)`, `(?>…)`) is a call, and those nest as the expression does.

use std::fmt;

use super::parse::{Case, Class, Greed, Item, Kind, Place, Set};
use super::program::{Program, Step};

/// Where an expression fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Beginning and end of each group, in bytes; the whole is the first.
    groups: Vec<Option<(usize, usize)>>,
}

impl Found {
    pub fn get(&self, group: usize) -> Option<(usize, usize)> {
        self.groups.get(group).copied().flatten()
    }

    /// How many groups there are, the whole one counted.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn end(&self) -> usize {
        self.get(0).map_or(0, |(_, end)| end)
    }

    /// Whether nothing was fitted.
    pub fn is_empty(&self) -> bool {
        self.get(0).is_none_or(|(start, end)| start == end)
    }
}

/// The expression goes back and forth more than anybody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooHard;

impl fmt::Display for TooHard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the expression backtracks without end")
    }
}

/// Ways tried in one search: a second or so.
const WAYS_MAX: u64 = 5_000_000;

/// Finds the first place at or after a byte; `moves`: not one of no width at that byte.
pub(super) fn search(
    program: &Program,
    text: &str,
    from: usize,
    moves: bool,
) -> Result<Option<Found>, TooHard> {
    let mut machine = Machine {
        program,
        text,
        slots: vec![None; program.slots],
        trail: Vec::new(),
        ways: Vec::new(),
        left: WAYS_MAX,
        not_here: moves.then_some(from),
    };
    let first = program.steps.get(1);
    let mut at = from;
    loop {
        if let Some(Step::One(Class::Char(char, Case::Exact))) = first {
            // Nothing fits before the first letter does.
            match text[at..].find(*char) {
                Some(next) => at += next,
                None => return Ok(None),
            }
        }
        if machine.fits(0, at)?.is_some() {
            return Ok(Some(machine.found()));
        }
        let anchored = matches!(first, Some(Step::At(Place::TextStart)));
        let Some(char) = text[at..].chars().next().filter(|_| !anchored) else {
            return Ok(None);
        };
        at += char.len_utf8();
        machine.reset();
    }
}

struct Machine<'p, 't> {
    program: &'p Program,
    text: &'t str,
    slots: Vec<Option<usize>>,
    /// What slots were before, to be put back.
    trail: Vec<(usize, Option<usize>)>,
    ways: Vec<Way>,
    left: u64,
    /// The whole must not be empty at this place.
    not_here: Option<usize>,
}

/// Another way to go on, and what to forget first.
enum Way {
    Step {
        step: usize,
        at: usize,
        trail: usize,
    },
    /// One character fewer, or more, of a run.
    Run {
        step: usize,
        /// The least place, and the present one.
        low: usize,
        at: usize,
        /// Characters that a lazy run may still take.
        more: u64,
        trail: usize,
    },
}

impl Machine<'_, '_> {
    fn reset(&mut self) {
        self.slots.fill(None);
        self.trail.clear();
        self.ways.clear();
    }

    fn found(&self) -> Found {
        let group = |group: usize| self.slots[group * 2].zip(self.slots[group * 2 + 1]);
        Found {
            groups: (0..self.program.groups).map(group).collect(),
        }
    }

    fn set(&mut self, slot: usize, place: Option<usize>) {
        self.trail.push((slot, self.slots[slot]));
        self.slots[slot] = place;
    }

    fn forget(&mut self, trail: usize) {
        for (slot, before) in self.trail.drain(trail..).rev() {
            self.slots[slot] = before;
        }
    }

    /// Runs from a step at a place up to `Done`; says where that was reached. On success only
    /// what was found stays; on failure nothing does.
    fn fits(&mut self, start: usize, at: usize) -> Result<Option<usize>, TooHard> {
        let (ways, trail) = (self.ways.len(), self.trail.len());
        let (mut step, mut at) = (start, at);
        loop {
            match self.walk(step, at)? {
                // Only the whole begins with the first step.
                Some(end)
                    if start == 0 && self.slots[0] == Some(end) && self.not_here == Some(end) => {}
                Some(end) => {
                    self.ways.truncate(ways);
                    return Ok(Some(end));
                }
                None => {}
            }
            if self.ways.len() == ways {
                self.forget(trail);
                return Ok(None);
            }
            self.left = self.left.checked_sub(1).ok_or(TooHard)?;
            (step, at) = self.back();
        }
    }

    /// Takes the last choice again, the other way.
    fn back(&mut self) -> (usize, usize) {
        match self.ways.pop().expect("there is one") {
            Way::Step { step, at, trail } => {
                self.forget(trail);
                (step, at)
            }
            Way::Run {
                step,
                low,
                at,
                more,
                trail,
            } => {
                self.forget(trail);
                let Step::Run { class, greed, .. } = &self.program.steps[step] else {
                    unreachable!("runs come from runs");
                };
                if *greed == Greed::Lazy {
                    let Some(char) = self.text[at..]
                        .chars()
                        .next()
                        .filter(|char| fits(class, *char))
                    else {
                        return (NOWHERE, at);
                    };
                    let at = at + char.len_utf8();
                    if more > 1 {
                        self.ways.push(Way::Run {
                            step,
                            low,
                            at,
                            more: more - 1,
                            trail,
                        });
                    }
                    return (step + 1, at);
                }
                let char = self.text[..at].chars().next_back();
                let at = at - char.map_or(0, char::len_utf8);
                if at > low {
                    self.ways.push(Way::Run {
                        step,
                        low,
                        at,
                        more,
                        trail,
                    });
                }
                (step + 1, at)
            }
        }
    }

    /// Goes one way to its end.
    fn walk(&mut self, mut step: usize, mut at: usize) -> Result<Option<usize>, TooHard> {
        if step == NOWHERE {
            return Ok(None);
        }
        let program = self.program;
        loop {
            match &program.steps[step] {
                Step::Done => return Ok(Some(at)),
                Step::One(class) => {
                    match self.text[at..].chars().next() {
                        Some(char) if fits(class, char) => at += char.len_utf8(),
                        _ => return Ok(None),
                    }
                    step += 1;
                }
                Step::Run {
                    class,
                    least,
                    most,
                    greed,
                } => {
                    let Some(next) = self.run(step, at, class, (*least, *most), *greed) else {
                        return Ok(None);
                    };
                    at = next;
                    step += 1;
                }
                Step::At(place) => {
                    if !is_at(*place, self.text, at) {
                        return Ok(None);
                    }
                    step += 1;
                }
                Step::Save(slot) => {
                    self.set(*slot, Some(at));
                    step += 1;
                }
                Step::Begin(mark) => {
                    self.set(*mark, Some(at));
                    step += 1;
                }
                Step::Round { mark, to } => {
                    let moved = self.slots[*mark] != Some(at);
                    step = if moved { *to } else { step + 1 };
                }
                Step::Split { first, second } => {
                    self.ways.push(Way::Step {
                        step: *second,
                        at,
                        trail: self.trail.len(),
                    });
                    step = *first;
                }
                Step::Jump(to) => step = *to,
                Step::Again { group, case } => {
                    let Some((start, end)) = self.group(*group) else {
                        return Ok(None);
                    };
                    let mut rest = self.text[at..].chars();
                    for wanted in self.text[start..end].chars() {
                        match rest.next() {
                            Some(char) if same(wanted, char, *case) => at += char.len_utf8(),
                            _ => return Ok(None),
                        }
                    }
                    step += 1;
                }
                Step::Look {
                    behind,
                    wanted,
                    after,
                } => {
                    let start = back_by(self.text, at, *behind);
                    let trail = self.trail.len();
                    let found = match start {
                        Some(start) => self.fits(step + 1, start)?.is_some(),
                        None => false,
                    };
                    if found != *wanted {
                        self.forget(trail);
                        return Ok(None);
                    }
                    if !wanted {
                        self.forget(trail);
                    }
                    step = *after;
                }
                Step::Atomic { after } => {
                    let Some(end) = self.fits(step + 1, at)? else {
                        return Ok(None);
                    };
                    at = end;
                    step = *after;
                }
                Step::If { group, otherwise } => {
                    let is_set = self.group(*group).is_some();
                    step = if is_set { step + 1 } else { *otherwise };
                }
            }
        }
    }

    fn group(&self, group: usize) -> Option<(usize, usize)> {
        self.slots[group * 2].zip(self.slots[group * 2 + 1])
    }

    /// Takes characters of one class; leaves the way to take fewer, or more.
    fn run(
        &mut self,
        step: usize,
        start: usize,
        class: &Class,
        (least, most): (u32, Option<u32>),
        greed: Greed,
    ) -> Option<usize> {
        let first = if greed == Greed::Lazy {
            Some(least)
        } else {
            most
        };
        let mut chars = self.text[start..].char_indices();
        let mut count = 0;
        let mut low = start;
        let mut at = start;
        while first.is_none_or(|first| count < first) {
            let Some((_, char)) = chars.next().filter(|(_, char)| fits(class, *char)) else {
                break;
            };
            at += char.len_utf8();
            count += 1;
            if count == least {
                low = at;
            }
        }
        if count < least {
            return None;
        }
        let more = u64::from(most.unwrap_or(u32::MAX) - count);
        let leaves = match greed {
            Greed::Greedy => at > low,
            Greed::Lazy => more > 0,
            Greed::Possessive => false,
        };
        if leaves {
            self.ways.push(Way::Run {
                step,
                low,
                at,
                more,
                trail: self.trail.len(),
            });
        }
        Some(at)
    }
}

/// A way that ends at once.
const NOWHERE: usize = usize::MAX;

fn back_by(text: &str, at: usize, count: usize) -> Option<usize> {
    if count == 0 {
        return Some(at);
    }
    let start = text[..at].char_indices().rev().nth(count - 1)?;
    Some(start.0)
}

fn is_at(place: Place, text: &str, at: usize) -> bool {
    let rest = &text[at..];
    match place {
        Place::TextStart => at == 0,
        Place::LineStart => at == 0 || text[..at].ends_with('\n'),
        Place::TextEnd => rest.is_empty(),
        Place::LastLineEnd => rest.is_empty() || rest == "\n",
        Place::LineEnd => rest.is_empty() || rest.starts_with('\n'),
        Place::Boundary { ascii, wanted } => {
            let is_word = |char: Option<char>| char.is_some_and(|char| is(Kind::Word, char, ascii));
            let before = is_word(text[..at].chars().next_back());
            // In a text without characters Python finds neither kind of place.
            !text.is_empty() && (before != is_word(rest.chars().next())) == wanted
        }
    }
}

fn fits(class: &Class, char: char) -> bool {
    match class {
        Class::Any => true,
        Class::AnyButNewline => char != '\n',
        Class::Char(wanted, case) => same(*wanted, char, *case),
        Class::Set(set) => in_set(set, char) != set.negated,
    }
}

fn in_set(set: &Set, char: char) -> bool {
    let has = |char: char| {
        set.items.iter().any(|item| match *item {
            Item::Range(low, high) => (low..=high).contains(&char),
            Item::Kind {
                kind,
                ascii,
                negated,
            } => is(kind, char, ascii) != negated,
        })
    };
    has(char)
        || match set.case {
            Case::Exact => false,
            Case::FoldedAscii => has(char.to_ascii_lowercase()) || has(char.to_ascii_uppercase()),
            Case::Folded => has(lower(char)) || has(upper(char)),
        }
}

fn same(one: char, other: char, case: Case) -> bool {
    one == other
        || match case {
            Case::Exact => false,
            Case::FoldedAscii => one.eq_ignore_ascii_case(&other),
            Case::Folded => lower(one) == lower(other) || upper(one) == upper(other),
        }
}

/// The lower letter, where it is one.
fn lower(char: char) -> char {
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        _ => char,
    }
}

fn upper(char: char) -> char {
    let mut upper = char.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(only), None) => only,
        _ => char,
    }
}

fn is(kind: Kind, char: char, ascii: bool) -> bool {
    if char.is_ascii() || ascii {
        return match kind {
            Kind::Digit => char.is_ascii_digit(),
            Kind::Word => char.is_ascii_alphanumeric() || char == '_',
            // Python counts the four separators of files, groups, records and units.
            Kind::Space => {
                matches!(char, ' ' | '\t'..='\r') || !ascii && matches!(char, '\u{1c}'..='\u{1f}')
            }
        };
    }
    match kind {
        Kind::Digit => is_decimal(char),
        Kind::Word => char.is_alphanumeric(),
        Kind::Space => char.is_whitespace(),
    }
}

/// Whether it is one of the ten digits of some script.
fn is_decimal(char: char) -> bool {
    /// Where each script's digits begin.
    const ZEROS: &[u32] = &[
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
        0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
        0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0,
        0xff10, 0x1_04a0, 0x1_0d30, 0x1_1066, 0x1_10f0, 0x1_1136, 0x1_11d0, 0x1_12f0, 0x1_1450,
        0x1_14d0, 0x1_1650, 0x1_16c0, 0x1_1730, 0x1_18e0, 0x1_1950, 0x1_1c50, 0x1_1d50, 0x1_1da0,
        0x1_6a60, 0x1_6ac0, 0x1_6b50, 0x1_d7ce, 0x1_d7d8, 0x1_d7e2, 0x1_d7ec, 0x1_d7f6, 0x1_e140,
        0x1_e2f0, 0x1_e950, 0x1_fbf0,
    ];
    let code = u32::from(char);
    let at = ZEROS.partition_point(|zero| *zero <= code);
    at > 0 && code - ZEROS[at - 1] < 10
}
