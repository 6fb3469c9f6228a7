//! The reports' own words, in each language a report can be in.

/// Languages by code; the first is what everything has.
pub const LANGUAGES: &[&str] = &["en", "ro"];

/// What stands around the checks' own texts.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub of: &'static str,
    pub points: &'static str,
    /// Behind a number of twenty or more.
    pub many_points: &'static str,
    pub expected: &'static str,
    pub found: &'static str,
    pub because: &'static str,
    pub look: &'static str,
    pub hint: &'static str,
    pub skipped: &'static str,
    pub silent: &'static str,
    pub stopped: &'static str,
    pub total: &'static str,
    pub nothing_lost: &'static str,
    pub topology: &'static str,
    pub path: &'static str,
    pub timeline: &'static str,
    pub checks: &'static str,
    pub seconds: &'static str,
    pub graded_in: &'static str,
    pub wrong: &'static str,
    pub right: &'static str,
    pub title: &'static str,
}

const ENGLISH: Words = Words {
    of: "of",
    points: "points",
    many_points: "points",
    expected: "expected",
    found: "found",
    because: "because",
    look: "look",
    hint: "hint",
    skipped: "not looked at, because this failed",
    silent: "does not answer over SSH: is it switched off, is its eth0 up, does it have its address?",
    stopped: "The grading ended early",
    total: "Together",
    nothing_lost: "Everything is right.",
    topology: "Machines",
    path: "A packet's way",
    timeline: "When what was looked at",
    checks: "Checks",
    seconds: "s",
    graded_in: "graded in the saved state",
    wrong: "something is wrong here",
    right: "right",
    title: "Lab report",
};

const ROMANIAN: Words = Words {
    of: "din",
    points: "puncte",
    many_points: "de puncte",
    expected: "așteptat",
    found: "găsit",
    because: "cauza",
    look: "vedeți",
    hint: "indiciu",
    skipped: "neverificat, pentru că nu a trecut",
    silent: "nu răspunde prin SSH: este oprită, eth0 este pornită, are adresa ei?",
    stopped: "Notarea s-a oprit înainte de sfârșit",
    total: "Total",
    nothing_lost: "Totul este corect.",
    topology: "Mașini",
    path: "Drumul unui pachet",
    timeline: "Ce s-a verificat și când",
    checks: "Verificări",
    seconds: "s",
    graded_in: "notat în starea salvată",
    wrong: "aici ceva nu este corect",
    right: "corect",
    title: "Raport de laborator",
};

impl Words {
    /// Returns the word for points behind their number.
    pub fn points_behind(&self, number: f64) -> &'static str {
        let of_a_hundred = number % 100.0;
        if number < 1.0 || (1.0..20.0).contains(&of_a_hundred) {
            self.points
        } else {
            self.many_points
        }
    }
}

/// Returns a language's words; one that is not known is English.
pub fn words(language: &str) -> &'static Words {
    match language {
        "ro" => &ROMANIAN,
        _ => &ENGLISH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_points_and_more_have_a_preposition_in_romanian() {
        let romanian = words("ro");
        for (number, word) in [
            (0.0, "puncte"),
            (2.5, "puncte"),
            (19.0, "puncte"),
            (20.0, "de puncte"),
            (100.0, "de puncte"),
            (101.0, "puncte"),
            (110.0, "puncte"),
            (120.0, "de puncte"),
        ] {
            assert_eq!(romanian.points_behind(number), word, "{number}");
        }
        assert_eq!(words("en").points_behind(20.0), "points");
    }
}
