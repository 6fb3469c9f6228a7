//! Which way leads to the state in which an exercise begins. Decides; does nothing.
//!
//! ```text
//!             what is known of the machines
//!  stands on them: all it builds on, nothing else ──► Continue
//!  untouched, or not to be trusted and alone ───────► Begin   (clean, or a kept checkpoint)
//!  somebody's own ──────────────────────────────────► Mend    (undo what stands otherwise, set up what is missing)
//! ```

use std::collections::BTreeMap;

use crate::playbook::exercise::{Done, Exercise};

/// The exercises of a lab, by name.
pub type Catalogue = BTreeMap<String, Exercise>;

/// What may be taken for granted about the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Nothing was done on them since the clean state.
    Untouched,
    /// Somebody works on them: nothing of theirs is lost for an exercise's sake.
    InUse,
    /// They are this command's own from one exercise to the next.
    Own,
}

/// How to get to where an exercise begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The machines are there.
    Continue,
    /// From the clean state, or from a checkpoint made of it.
    Begin,
    /// On the machines as they are: undo these, then set these up.
    Mend {
        undo: Vec<Done>,
        set_up: Vec<String>,
    },
}

/// Everything an exercise builds on, in the order in which it is set up.
pub fn foundation(wanted: &Exercise, catalogue: &Catalogue) -> Vec<String> {
    let mut order = Vec::new();
    collect(
        wanted,
        catalogue,
        &mut vec![wanted.name.clone()],
        &mut order,
    );
    order
}

/// `above` are the exercises under way: one that needs itself is not followed for ever.
fn collect(
    wanted: &Exercise,
    catalogue: &Catalogue,
    above: &mut Vec<String>,
    order: &mut Vec<String>,
) {
    for need in &wanted.needs {
        if above.contains(need) || order.contains(need) {
            continue;
        }
        if let Some(exercise) = catalogue.get(need) {
            above.push(need.clone());
            collect(exercise, catalogue, above, order);
            above.pop();
        }
        order.push(need.clone());
    }
}

/// Decides the way. `done` is what stands on the machines, oldest first.
pub fn way(wanted: &Exercise, catalogue: &Catalogue, done: &[Done], ground: Ground) -> Way {
    let foundation = foundation(wanted, catalogue);
    let stands = |name: &String| {
        let chosen = catalogue.get(name).map(|exercise| &exercise.choices);
        done.iter()
            .any(|each| each.name == *name && Some(&each.choices) == chosen)
    };
    let missing: Vec<String> = foundation
        .iter()
        .filter(|name| !stands(name))
        .cloned()
        .collect();
    match ground {
        Ground::Untouched if foundation.is_empty() => Way::Continue,
        Ground::Untouched => Way::Begin,
        Ground::Own => {
            let is_foreign = |each: &Done| !foundation.contains(&each.name);
            if missing.is_empty() && !done.iter().any(is_foreign) {
                Way::Continue
            } else {
                Way::Begin
            }
        }
        Ground::InUse => mend(wanted, catalogue, done, &foundation, &missing),
    }
}

/// What stands with other choices goes, with everything that was built on it.
fn mend(
    wanted: &Exercise,
    catalogue: &Catalogue,
    done: &[Done],
    foundation: &[String],
    missing: &[String],
) -> Way {
    let otherwise = |each: &Done| {
        let is_asked_for = each.name == wanted.name || foundation.contains(&each.name);
        let chosen = catalogue.get(&each.name).map(|exercise| &exercise.choices);
        is_asked_for && chosen != Some(&each.choices)
    };
    let mut undo: Vec<Done> = Vec::new();
    for each in done {
        let stands_on = |gone: &Done| {
            catalogue
                .get(&each.name)
                .is_some_and(|own| self::foundation(own, catalogue).contains(&gone.name))
        };
        if otherwise(each) || undo.iter().any(stands_on) {
            undo.push(each.clone());
        }
    }
    undo.reverse();
    let set_up: Vec<String> = foundation
        .iter()
        .filter(|name| missing.contains(name) || undo.iter().any(|gone| gone.name == **name))
        .cloned()
        .collect();
    if undo.is_empty() && set_up.is_empty() {
        Way::Continue
    } else {
        Way::Mend { undo, set_up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::exercise::Choices;

    fn exercise(name: &str, needs: &[&str], tools: &str) -> Exercise {
        Exercise {
            name: name.to_owned(),
            title: name.to_owned(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            choices: Choices::from([("tools".to_owned(), tools.to_owned())]),
        }
    }

    fn catalogue(tools: &str) -> Catalogue {
        let all = [
            exercise("01", &[], tools),
            exercise("03", &[], tools),
            exercise("04", &["03"], tools),
            exercise("05", &["04", "03"], tools),
            exercise("06", &["05"], tools),
        ];
        all.into_iter()
            .map(|each| (each.name.clone(), each))
            .collect()
    }

    fn done(names: &[&str], tools: &str) -> Vec<Done> {
        names
            .iter()
            .map(|name| exercise(name, &[], tools).done())
            .collect()
    }

    #[test]
    fn a_foundation_is_in_the_order_of_building() {
        let all = catalogue("agent");
        assert_eq!(foundation(&all["06"], &all), ["03", "04", "05"]);
        assert!(foundation(&all["01"], &all).is_empty());
    }

    #[test]
    fn exercises_that_need_each_other_are_not_followed_for_ever() {
        let all: Catalogue = [exercise("a", &["b"], ""), exercise("b", &["a"], "")]
            .into_iter()
            .map(|each| (each.name.clone(), each))
            .collect();
        assert_eq!(foundation(&all["a"], &all), ["b"]);
    }

    #[test]
    fn one_after_the_other_continues_where_it_builds_on_what_stands() {
        let all = catalogue("agent");
        let way = |name: &str, done: &[Done]| way(&all[name], &all, done, Ground::Own);
        assert_eq!(way("04", &done(&["03"], "agent")), Way::Continue);
        assert_eq!(way("05", &done(&["03", "04"], "agent")), Way::Continue);
        assert_eq!(way("03", &done(&["01"], "agent")), Way::Begin);
        assert_eq!(way("04", &done(&["03"], "native")), Way::Begin);
        assert_eq!(way("04", &[]), Way::Begin);
        assert_eq!(way("01", &[]), Way::Continue);
    }

    #[test]
    fn machines_in_use_lose_nothing_but_what_stands_otherwise() {
        let all = catalogue("agent");
        let way = |name: &str, done: &[Done]| way(&all[name], &all, done, Ground::InUse);
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(way("05", &done(&["03", "04"], "agent")), Way::Continue);
        // An exercise that has nothing to do with it stays.
        assert_eq!(
            way("04", &done(&["01"], "agent")),
            Way::Mend {
                undo: vec![],
                set_up: names(&["03"]),
            }
        );
        // 05 was built on the 04 that has to go, and goes before it.
        let mut stands = done(&["03"], "agent");
        stands.extend(done(&["04", "05"], "native"));
        assert_eq!(
            way("05", &stands),
            Way::Mend {
                undo: done(&["05", "04"], "native"),
                set_up: names(&["04"]),
            }
        );
        // The exercise itself with another choice.
        assert_eq!(
            way("01", &done(&["01"], "native")),
            Way::Mend {
                undo: done(&["01"], "native"),
                set_up: vec![],
            }
        );
    }

    #[test]
    fn untouched_machines_take_a_checkpoint() {
        let all = catalogue("agent");
        assert_eq!(way(&all["05"], &all, &[], Ground::Untouched), Way::Begin);
        assert_eq!(way(&all["01"], &all, &[], Ground::Untouched), Way::Continue);
    }
}
