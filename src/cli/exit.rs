//! The exit codes, in one table.

/// What a command's end means to whoever called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// A check or a task failed.
    Failed,
    /// Could not run: bad input or a missing tool. The message says which, and how to mend it.
    CouldNotRun,
    /// Ctrl-C.
    Interrupted,
    /// What a command run on the user's behalf (`ssh`, `shell`) ended with.
    Of(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::CouldNotRun => 2,
            Self::Interrupted => 130,
            Self::Of(code) => code,
        }
    }
}
