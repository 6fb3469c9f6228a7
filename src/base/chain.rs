//! An error and its sources, one cause a line.

use std::error::Error;
use std::fmt;

/// Displays an error with everything that led to it.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, "\n  because: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to start saisp-vm-1")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn each_cause_has_its_line() {
        let error = Outer(std::io::Error::other("no space"));
        assert_eq!(
            Chain(&error).to_string(),
            "failed to start saisp-vm-1\n  because: no space"
        );
    }
}
