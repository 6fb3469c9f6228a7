//! Unified diffs, line for line as Python's `difflib` makes them.
//!
//! Another algorithm would show the same change with other lines kept, and the output
//! would no longer be Ansible's.

use std::collections::HashMap;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// From this many lines on, lines that make up more than a hundredth of the text do not
/// start a match (difflib's "autojunk").
const POPULAR_FROM_LINES: usize = 200;

/// Returns the diff's lines, each with its newline; none when the texts are equal.
pub fn unified(before: &str, after: &str, before_name: &str, after_name: &str) -> Vec<String> {
    let (before, after) = (lines(before), lines(after));
    let mut shown = Vec::new();
    for group in grouped(&opcodes(&before, &after)) {
        if shown.is_empty() {
            shown.push(format!("--- {before_name}\n"));
            shown.push(format!("+++ {after_name}\n"));
        }
        let (first, last) = (&group[0], &group[group.len() - 1]);
        shown.push(format!(
            "@@ -{} +{} @@\n",
            range(first.before.0, last.before.1),
            range(first.after.0, last.after.1)
        ));
        for step in &group {
            if step.kind == StepKind::Equal {
                let same = &before[step.before.0..step.before.1];
                shown.extend(same.iter().map(|line| format!(" {line}")));
                continue;
            }
            let gone = &before[step.before.0..step.before.1];
            let come = &after[step.after.0..step.after.1];
            shown.extend(gone.iter().map(|line| format!("-{line}")));
            shown.extend(come.iter().map(|line| format!("+{line}")));
        }
    }
    shown
}

/// Ansible's way to split: every line ends with a newline, and a last one that had none
/// says so.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut()
        && !last.ends_with('\n')
    {
        last.push_str("\n\\ No newline at end of file\n");
    }
    lines
}

fn range(start: usize, stop: usize) -> String {
    match stop - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    Equal,
    Change,
}

/// Lines `before.0..before.1` become lines `after.0..after.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    kind: StepKind,
    before: (usize, usize),
    after: (usize, usize),
}

/// Cuts the steps into hunks: long equal runs in between are shortened to context.
fn grouped(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut steps = steps.to_vec();
    if let Some(first) = steps.first_mut()
        && first.kind == StepKind::Equal
    {
        first.before.0 = first.before.0.max(first.before.1.saturating_sub(CONTEXT));
        first.after.0 = first.after.0.max(first.after.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut()
        && last.kind == StepKind::Equal
    {
        last.before.1 = last.before.1.min(last.before.0 + CONTEXT);
        last.after.1 = last.after.1.min(last.after.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Step> = Vec::new();
    for mut step in steps {
        if step.kind == StepKind::Equal && step.before.1 - step.before.0 > 2 * CONTEXT {
            group.push(Step {
                before: (step.before.0, step.before.1.min(step.before.0 + CONTEXT)),
                after: (step.after.0, step.after.1.min(step.after.0 + CONTEXT)),
                ..step
            });
            groups.push(std::mem::take(&mut group));
            step.before.0 = step.before.0.max(step.before.1 - CONTEXT);
            step.after.0 = step.after.0.max(step.after.1 - CONTEXT);
        }
        group.push(step);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|step| step.kind == StepKind::Change));
    groups
}

fn opcodes(before: &[String], after: &[String]) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut from, mut to) = (0, 0);
    for block in matching_blocks(before, after) {
        if from < block.before || to < block.after {
            steps.push(Step {
                kind: StepKind::Change,
                before: (from, block.before),
                after: (to, block.after),
            });
        }
        from = block.before + block.length;
        to = block.after + block.length;
        if block.length > 0 {
            steps.push(Step {
                kind: StepKind::Equal,
                before: (block.before, from),
                after: (block.after, to),
            });
        }
    }
    steps
}

/// `length` equal lines from `before` and from `after` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    before: usize,
    after: usize,
    length: usize,
}

fn matching_blocks(before: &[String], after: &[String]) -> Vec<Block> {
    let places = places(after);
    let mut pending = vec![(0, before.len(), 0, after.len())];
    let mut blocks = Vec::new();
    while let Some((from, from_end, to, to_end)) = pending.pop() {
        let block = longest_match(before, after, &places, (from, from_end), (to, to_end));
        if block.length == 0 {
            continue;
        }
        blocks.push(block);
        pending.push((from, block.before, to, block.after));
        let (next_from, next_to) = (block.before + block.length, block.after + block.length);
        pending.push((next_from, from_end, next_to, to_end));
    }
    blocks.sort_unstable();
    let mut joined: Vec<Block> = Vec::new();
    for block in blocks {
        match joined.last_mut() {
            Some(last)
                if last.before + last.length == block.before
                    && last.after + last.length == block.after =>
            {
                last.length += block.length;
            }
            _ => joined.push(block),
        }
    }
    joined.push(Block {
        before: before.len(),
        after: after.len(),
        length: 0,
    });
    joined
}

/// Where each line stands in `after`, without lines too popular to begin a match with.
fn places(after: &[String]) -> HashMap<&str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, line) in after.iter().enumerate() {
        places.entry(line).or_default().push(index);
    }
    if after.len() >= POPULAR_FROM_LINES {
        let often = after.len() / 100 + 1;
        places.retain(|_, found| found.len() <= often);
    }
    places
}

fn longest_match(
    before: &[String],
    after: &[String],
    places: &HashMap<&str, Vec<usize>>,
    (from, from_end): (usize, usize),
    (to, to_end): (usize, usize),
) -> Block {
    let mut best = Block {
        before: from,
        after: to,
        length: 0,
    };
    // Length of the match that ends at the previous line of `before`, by line of `after`.
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for (index, line) in before.iter().enumerate().take(from_end).skip(from) {
        let mut next = HashMap::new();
        let found = places.get(line.as_str()).map_or(&[][..], Vec::as_slice);
        for &place in found.iter().filter(|&&place| place >= to && place < to_end) {
            let before_it = place.checked_sub(1).and_then(|place| ending.get(&place));
            let length = before_it.copied().unwrap_or(0) + 1;
            next.insert(place, length);
            if length > best.length {
                best = Block {
                    before: index + 1 - length,
                    after: place + 1 - length,
                    length,
                };
            }
        }
        ending = next;
    }
    extend(before, after, best, (from, from_end), (to, to_end))
}

/// Grows a match over neighbours that were too popular to begin one.
fn extend(
    before: &[String],
    after: &[String],
    mut best: Block,
    (from, from_end): (usize, usize),
    (to, to_end): (usize, usize),
) -> Block {
    while best.before > from && best.after > to && before[best.before - 1] == after[best.after - 1]
    {
        best.before -= 1;
        best.after -= 1;
        best.length += 1;
    }
    while best.before + best.length < from_end
        && best.after + best.length < to_end
        && before[best.before + best.length] == after[best.after + best.length]
    {
        best.length += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_stands_between_its_context() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let after = "a\nb\nc\nd\nE\nf\ng\nh\n";
        assert_eq!(
            unified(before, after, "before", "after: /x").concat(),
            "--- before\n+++ after: /x\n@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n"
        );
    }

    #[test]
    fn a_new_file_begins_at_line_nought() {
        assert_eq!(
            unified("", "one\ntwo", "before", "after").concat(),
            "--- before\n+++ after\n@@ -0,0 +1,2 @@\n+one\n+two\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn equal_texts_have_no_diff() {
        assert!(unified("a\n", "a\n", "before", "after").is_empty());
    }

    #[test]
    fn changes_far_apart_are_separate_hunks() {
        let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let before = numbers.join("\n") + "\n";
        let after = before.replace("2\n3\n", "2\nx\n3\n").replace("17\n", "");
        let hunks = unified(&before, &after, "before", "after");
        assert_eq!(
            hunks.iter().filter(|line| line.starts_with("@@")).count(),
            2
        );
    }
}
