//! A tree → a program of small steps.

use super::parse::{Case, Class, Greed, Node, Parsed, Place, Problem};

/// One step. Numbers are steps' places in the program.
#[derive(Clone, Debug)]
pub(super) enum Step {
    One(Class),
    /// As many of these as there are, fewer where it must be.
    Run {
        class: Class,
        least: u32,
        most: Option<u32>,
        greed: Greed,
    },
    At(Place),
    /// Remembers this place as a group's beginning or end.
    Save(usize),
    /// Goes on with the first, and with the second where that leads nowhere.
    Split {
        first: usize,
        second: usize,
    },
    Jump(usize),
    Again {
        group: usize,
        case: Case,
    },
    Look {
        behind: usize,
        wanted: bool,
        after: usize,
    },
    Atomic {
        after: usize,
    },
    If {
        group: usize,
        otherwise: usize,
    },
    /// A turn of a loop begins here.
    Begin(usize),
    /// Goes round again unless the last turn moved nothing.
    Round {
        mark: usize,
        to: usize,
    },
    /// The end of the whole, or of what is looked at by itself.
    Done,
}

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub steps: Vec<Step>,
    /// Groups' beginnings and ends, the whole's first; then the loops' marks.
    pub slots: usize,
    pub groups: usize,
}

/// More steps than an expression of a person's has; repeating what is repeated multiplies them.
const STEPS_MAX: usize = 100_000;

impl Program {
    pub(super) fn new(parsed: &Parsed) -> Result<Self, Problem> {
        let groups = parsed.groups + 1;
        let mut program = Self {
            steps: Vec::new(),
            slots: groups * 2,
            groups,
        };
        program.push(Step::Save(0))?;
        program.node(&parsed.root)?;
        program.push(Step::Save(1))?;
        program.push(Step::Done)?;
        Ok(program)
    }

    fn push(&mut self, step: Step) -> Result<usize, Problem> {
        if self.steps.len() >= STEPS_MAX {
            return Err(Problem::new("the expression is too large", None));
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn here(&self) -> usize {
        self.steps.len()
    }

    fn node(&mut self, node: &Node) -> Result<(), Problem> {
        match node {
            Node::One(class) => self.push(Step::One(class.clone())).map(drop),
            Node::At(place) => self.push(Step::At(*place)).map(drop),
            Node::Sequence(nodes) => nodes.iter().try_for_each(|node| self.node(node)),
            Node::Choice(ways) => self.choice(ways),
            Node::Repeat {
                what,
                least,
                most,
                greed,
            } => self.repeat(what, *least, *most, *greed),
            Node::Group(number, what) => {
                self.push(Step::Save(number * 2))?;
                self.node(what)?;
                self.push(Step::Save(number * 2 + 1)).map(drop)
            }
            Node::Again { group, case } => self
                .push(Step::Again {
                    group: *group,
                    case: *case,
                })
                .map(drop),
            Node::Look {
                what,
                behind,
                wanted,
            } => {
                let look = self.push(Step::Jump(0))?;
                self.node(what)?;
                self.push(Step::Done)?;
                self.steps[look] = Step::Look {
                    behind: *behind,
                    wanted: *wanted,
                    after: self.here(),
                };
                Ok(())
            }
            Node::Atomic(what) => self.atomic(|program| program.node(what)),
            Node::If {
                group,
                then,
                otherwise,
            } => {
                let condition = self.push(Step::Jump(0))?;
                self.node(then)?;
                let jump = self.push(Step::Jump(0))?;
                self.steps[condition] = Step::If {
                    group: *group,
                    otherwise: self.here(),
                };
                self.node(otherwise)?;
                self.steps[jump] = Step::Jump(self.here());
                Ok(())
            }
        }
    }

    fn atomic(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let atomic = self.push(Step::Jump(0))?;
        what(self)?;
        self.push(Step::Done)?;
        self.steps[atomic] = Step::Atomic { after: self.here() };
        Ok(())
    }

    fn choice(&mut self, ways: &[Node]) -> Result<(), Problem> {
        let mut ends = Vec::new();
        for (index, way) in ways.iter().enumerate() {
            if index + 1 == ways.len() {
                self.node(way)?;
                break;
            }
            let split = self.push(Step::Jump(0))?;
            self.node(way)?;
            ends.push(self.push(Step::Jump(0))?);
            self.steps[split] = Step::Split {
                first: split + 1,
                second: self.here(),
            };
        }
        for end in ends {
            self.steps[end] = Step::Jump(self.here());
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        what: &Node,
        least: u32,
        most: Option<u32>,
        greed: Greed,
    ) -> Result<(), Problem> {
        if let Node::One(class) = what {
            let class = class.clone();
            let run = Step::Run {
                class,
                least,
                most,
                greed,
            };
            return self.push(run).map(drop);
        }
        if greed == Greed::Possessive {
            return self.atomic(|program| program.repeat(what, least, most, Greed::Greedy));
        }
        for _ in 0..least {
            self.node(what)?;
        }
        match most {
            None => self.round(what, greed),
            Some(most) => {
                let mut splits = Vec::new();
                for _ in least..most {
                    splits.push(self.push(Step::Jump(0))?);
                    self.node(what)?;
                }
                let end = self.here();
                for split in splits {
                    self.steps[split] = split_of(greed, split + 1, end);
                }
                Ok(())
            }
        }
    }

    /// Any number of turns.
    fn round(&mut self, what: &Node, greed: Greed) -> Result<(), Problem> {
        let mark = self.slots;
        self.slots += 1;
        let split = self.push(Step::Jump(0))?;
        self.push(Step::Begin(mark))?;
        self.node(what)?;
        self.push(Step::Round { mark, to: split })?;
        self.steps[split] = split_of(greed, split + 1, self.here());
        Ok(())
    }
}

fn split_of(greed: Greed, inside: usize, outside: usize) -> Step {
    let (first, second) = match greed {
        Greed::Lazy => (outside, inside),
        Greed::Greedy | Greed::Possessive => (inside, outside),
    };
    Step::Split { first, second }
}
