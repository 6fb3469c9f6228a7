//! Events as lines for a terminal: as wide as it is, coloured where that is wanted.
//!
//! A way that was shown is not shown again: more requests that took it have a line each, which
//! names the one to compare with.

use std::fmt::Write as _;

use super::frame::Tunnel;
use super::path::{Ending, Explained, Hop, Method};
use super::summary::{Owners, Summary, WayCount};
use super::tracker::{ArpExplained, Event, Seen};

/// Below this nothing is cut any more: stations and addresses stay on one line.
const WIDTH_MIN: usize = 60;
/// Wider lines are hard to read.
const WIDTH_MAX: usize = 120;
/// Longest bar of a distribution.
const BAR_CHARS_MAX: u64 = 40;
/// Space before a way's hops.
const INDENT: usize = 4;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub width: usize,
    pub colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Bold,
    Dim,
    /// The client.
    Blue,
    /// The director.
    Yellow,
    /// The real server, and what went well.
    Green,
    /// What a hop changed.
    Magenta,
    /// What is wrong.
    Red,
    Cyan,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Blue => "34;1",
            Self::Yellow => "33;1",
            Self::Green => "32;1",
            Self::Magenta => "35",
            Self::Red => "31;1",
            Self::Cyan => "36",
        }
    }
}

/// A line that is being put together.
#[derive(Debug, Default)]
struct Line {
    parts: Vec<(Paint, String)>,
}

impl Line {
    fn new() -> Self {
        Self::default()
    }

    fn add(mut self, paint: Paint, text: impl Into<String>) -> Self {
        self.parts.push((paint, text.into()));
        self
    }

    fn plain(self, text: impl Into<String>) -> Self {
        self.add(Paint::Plain, text)
    }

    fn width(&self) -> usize {
        self.parts
            .iter()
            .map(|(_, text)| text.chars().count())
            .sum()
    }

    /// Fills with spaces up to a column.
    fn pad_to(self, column: usize) -> Self {
        let missing = column.saturating_sub(self.width());
        self.plain(" ".repeat(missing))
    }

    fn render(&self, colour: bool) -> String {
        let mut line = String::new();
        for (paint, text) in &self.parts {
            if colour && *paint != Paint::Plain && !text.is_empty() {
                let _ = write!(line, "\x1b[{}m{text}\x1b[0m", paint.code());
            } else {
                line.push_str(text);
            }
        }
        line.trim_end().to_owned()
    }
}

/// Writes events; remembers which ways it has shown.
#[derive(Debug)]
pub struct View {
    style: Style,
    /// What a shown way looked like, and the number under which it was shown.
    shown: Vec<(String, u64)>,
    /// The last thing said had several lines: an empty one sets the next apart.
    after_block: bool,
}

impl View {
    pub fn new(style: Style) -> Self {
        Self {
            style: Style {
                width: style.width.clamp(WIDTH_MIN, WIDTH_MAX),
                ..style
            },
            shown: Vec::new(),
            after_block: false,
        }
    }

    pub fn event(&mut self, event: &Event) -> Vec<String> {
        let mut lines = match event {
            Event::Request(explained) => self.request(explained),
            Event::Arp(arp) => arp_lines(arp, self.style.width),
            Event::Seen(seen) => seen_lines(seen),
        };
        let is_block = matches!(event, Event::Request(_)) && lines.len() > 1;
        if is_block || self.after_block {
            lines.insert(0, Line::new());
        }
        self.after_block = is_block;
        self.render(&lines)
    }

    pub fn summary(&self, summary: &Summary, interfaces: &str) -> Vec<String> {
        self.render(&self.summary_lines(summary, interfaces))
    }

    fn render(&self, lines: &[Line]) -> Vec<String> {
        let colour = self.style.colour;
        lines.iter().map(|line| line.render(colour)).collect()
    }

    fn request(&mut self, explained: &Explained) -> Vec<Line> {
        let title = title(explained);
        let shape = shape(explained);
        let as_before = self
            .shown
            .iter()
            .find(|(shown, _)| *shown == shape)
            .map(|(_, number)| *number);
        if let Some(number) = as_before {
            return vec![title.add(Paint::Dim, format!("  the way of #{number}"))];
        }
        self.shown.push((shape, explained.number));
        let mut lines = vec![title];
        let names = explained
            .hops
            .iter()
            .flat_map(|hop| [&hop.from, &hop.to])
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);
        for hop in &explained.hops {
            lines.extend(self.hop(explained, hop, names));
        }
        lines.extend(self.verdict(explained));
        lines
    }

    fn hop(&self, explained: &Explained, hop: &Hop, names: usize) -> Vec<Line> {
        let name = |name: &str| (role(explained, name), format!("{name:<names$}"));
        let (from, to) = (name(&hop.from), name(&hop.to));
        let column = INDENT + 2 * names + 7;
        let is_new = |what: &str| hop.changes.iter().any(|change| change.starts_with(what));
        let address = |text: &str, what: &str| {
            let paint = if is_new(what) {
                Paint::Magenta
            } else {
                Paint::Plain
            };
            (paint, text.to_owned())
        };
        let arrow = if hop.reply { "◀─" } else { "─▶" };
        // An answer's arrow points to the left, towards the client, wherever it stands.
        let (left, right) = if hop.reply { (to, from) } else { (from, to) };
        let (source, destination) = (
            address(&hop.source, "source"),
            address(&hop.destination, "destination"),
        );
        let mut first = Line::new()
            .plain(" ".repeat(INDENT))
            .add(left.0, left.1)
            .add(Paint::Dim, format!(" {arrow} "))
            .add(right.0, right.1)
            .pad_to(column)
            .add(source.0, source.1)
            .add(Paint::Dim, " → ")
            .add(destination.0, destination.1);
        let mut lines = Vec::new();
        if let Some(inside) = &hop.inside {
            let port = inside
                .port
                .map_or_else(String::new, |port| format!(", UDP port {port}"));
            let text = format!(
                "inside {} {} → {}{port}",
                inside.kind.word(),
                inside.source,
                inside.destination
            );
            if first.width() + 2 + text.chars().count() <= self.style.width {
                first = first.plain("  ").add(Paint::Magenta, text);
                lines.push(first);
            } else {
                lines.push(first);
                lines.push(Line::new().pad_to(column).add(Paint::Magenta, text));
            }
        } else {
            lines.push(first);
        }
        let again = match hop.retransmissions {
            0 => String::new(),
            times => format!(", {times} sent again"),
        };
        let more = match hop.frames {
            0 | 1 => String::new(),
            frames => format!(" and {} more", frames - 1),
        };
        let facts = [
            format!("{} → {}  TTL {}", hop.from_mac, hop.to_mac, hop.ttl),
            format!("frame {}{more}{again}", hop.frame),
        ];
        let mut line = Line::new().pad_to(column);
        for fact in facts {
            if line.width() > column && line.width() + 2 + fact.chars().count() > self.style.width {
                lines.push(line);
                line = Line::new().pad_to(column);
            } else if line.width() > column {
                line = line.plain("  ");
            }
            line = line.add(Paint::Dim, fact);
        }
        lines.push(line);
        lines
    }

    /// The method, what proves it, and what is wrong.
    fn verdict(&self, explained: &Explained) -> Vec<Line> {
        let label = method_label(explained.method, explained.encapsulation.map(Tunnel::word));
        let mut lines = Vec::new();
        let paint = if explained.method == Method::Unknown {
            Paint::Dim
        } else {
            Paint::Bold
        };
        let head = format!("{label}: ");
        let width = self.style.width.saturating_sub(INDENT);
        for (index, text) in wrap(&explained.proof, width, head.chars().count())
            .into_iter()
            .enumerate()
        {
            let line = Line::new().plain(" ".repeat(INDENT));
            lines.push(if index == 0 {
                line.add(paint, head.clone()).plain(text)
            } else {
                line.plain(text)
            });
        }
        for problem in &explained.problems {
            for (index, text) in wrap(problem, width, 2).into_iter().enumerate() {
                let line = Line::new().plain(" ".repeat(INDENT));
                let mark = if index == 0 { "! " } else { "  " };
                lines.push(line.add(Paint::Red, format!("{mark}{text}")));
            }
        }
        lines
    }

    fn summary_lines(&self, summary: &Summary, interfaces: &str) -> Vec<Line> {
        let mut lines = vec![Line::new()];
        let text = format!(
            "── {}, {}, in {} on {interfaces} ",
            frames(summary.frames),
            bytes(summary.bytes),
            seconds(summary.seconds)
        );
        let rule = self.style.width.saturating_sub(text.chars().count());
        lines.push(
            Line::new()
                .add(Paint::Bold, text)
                .add(Paint::Dim, "─".repeat(rule)),
        );
        if summary.dropped > 0 {
            lines.push(Line::new().add(
                Paint::Red,
                format!(
                    "! the kernel had no room for {}: what follows is not whole",
                    frames(summary.dropped)
                ),
            ));
        }
        lines.extend(distribution(summary));
        lines.extend(endings(summary));
        for owners in &summary.arp {
            lines.extend(owners_line(owners));
        }
        for (problem, times) in &summary.problems {
            let times = if *times > 1 {
                format!(" ({times} times)")
            } else {
                String::new()
            };
            let text = format!("{problem}{times}");
            for (index, text) in wrap(&text, self.style.width, 2).into_iter().enumerate() {
                let mark = if index == 0 { "! " } else { "  " };
                lines.push(Line::new().add(Paint::Red, format!("{mark}{text}")));
            }
        }
        if !summary.others.is_empty() {
            lines.push(Line::new().add(Paint::Dim, "beside that:"));
        }
        for other in &summary.others {
            let ends = if other.from.is_empty() {
                String::new()
            } else {
                format!("{} → {}  ", other.from, other.to)
            };
            lines.push(Line::new().add(
                Paint::Dim,
                format!(
                    "    {:<24} {ends}{}, {}",
                    other.what,
                    frames(other.frames),
                    bytes(other.bytes)
                ),
            ));
        }
        lines
    }
}

/// Two requests of the same shape took the same way and ended alike.
fn shape(explained: &Explained) -> String {
    let ending = match &explained.ending {
        Ending::Open | Ending::Closed => None,
        other => Some(std::mem::discriminant(other)),
    };
    let mut shape = format!(
        "{} {:?} {ending:?} {:?}",
        explained.service, explained.method, explained.problems
    );
    for hop in &explained.hops {
        let _ = write!(
            shape,
            "|{}{}{}{:?}",
            hop.from_mac, hop.to_mac, hop.reply, hop.inside
        );
    }
    shape
}

fn role(explained: &Explained, name: &str) -> Paint {
    if explained.director.as_deref() == Some(name) {
        Paint::Yellow
    } else if explained.server.as_deref() == Some(name) {
        Paint::Green
    } else if explained.client == name {
        Paint::Blue
    } else {
        Paint::Plain
    }
}

/// What was asked, of whom, what came of it.
fn title(explained: &Explained) -> Line {
    let line = clock(explained.at_seconds).add(Paint::Bold, format!("#{:<3} ", explained.number));
    let asked = match &explained.request {
        Some(request) => {
            let short = request
                .rsplit_once(' ')
                .map_or(request.as_str(), |(r, _)| r);
            format!("{short} of {}", explained.service)
        }
        None => format!(
            "{} of {}",
            explained.protocol.to_uppercase(),
            explained.service
        ),
    };
    let line = line.plain(asked);
    match &explained.ending {
        Ending::Refused { by, frame, reason } => line.add(
            Paint::Red,
            format!("  refused by {by}: {reason} (frame {frame})"),
        ),
        Ending::Unanswered {
            tries,
            last_seen_at,
        } => line.add(
            Paint::Red,
            format!("  no answer, tried {tries} times; it got as far as {last_seen_at}"),
        ),
        Ending::Reset { by, frame } => {
            line.add(Paint::Red, format!("  cut by {by} (frame {frame})"))
        }
        Ending::Open | Ending::Closed => {
            let line = match &explained.response {
                Some(response) => {
                    let short = response.split_once(' ').map_or("", |(_, status)| status);
                    let paint = if short.starts_with(['2', '3']) {
                        Paint::Green
                    } else {
                        Paint::Red
                    };
                    line.plain(": ").add(paint, short.to_owned())
                }
                None => line,
            };
            let line = match &explained.server {
                Some(server) => line.plain(" from ").add(Paint::Green, server.clone()),
                None => line,
            };
            let line = match explained.answered_after_seconds {
                Some(after) => line.plain(format!(" after {}", seconds(after))),
                None => line,
            };
            match explained.requests {
                0 | 1 => line,
                more => line.plain(format!(", {more} requests over the connection")),
            }
        }
    }
}

fn clock(at_seconds: f64) -> Line {
    Line::new().add(Paint::Dim, format!("{at_seconds:>9.3}  "))
}

fn method_label(method: Method, tunnel: Option<&str>) -> String {
    match (method, tunnel) {
        (Method::Tun, Some(tunnel)) => format!("LVS-TUN ({tunnel})"),
        (Method::Tun | Method::Nat | Method::Dr, _) => format!("LVS-{}", method.word()),
        (Method::Direct, _) => "Direct".to_owned(),
        (Method::Unknown, _) => "Way unknown".to_owned(),
    }
}

fn arp_lines(arp: &ArpExplained, width: usize) -> Vec<Line> {
    let stations: Vec<String> = arp
        .answers
        .iter()
        .map(|answer| format!("{} ({})", answer.station, answer.mac))
        .collect();
    let of_host = arp
        .host
        .as_ref()
        .map_or_else(String::new, |host| format!(" ({host})"));
    let address = format!("{}{of_host}", arp.address);
    let asked_by = arp.asked_by.as_deref().unwrap_or("somebody");
    let asks = format!("{asked_by} asks who has {address}:");
    let (paint, text) = match &stations[..] {
        _ if arp.announced => {
            let before = arp
                .before
                .as_ref()
                .map_or_else(String::new, |before| format!(", which was {before}'s"));
            let text = format!(
                "{} says that {address} is its own{before} (gratuitous ARP, frame {})",
                stations.join(", "),
                arp.frame
            );
            (Paint::Yellow, text)
        }
        [] => (Paint::Red, format!("{asks} nobody answers")),
        [one] => {
            // A machine that answers for its own address is what everybody expects.
            let paint = if arp.host.is_some() {
                Paint::Dim
            } else {
                Paint::Plain
            };
            (paint, format!("{asks} {one} answers, nobody else"))
        }
        several => {
            let text = format!(
                "{asks} {} stations answer, who wins is luck: {}",
                several.len(),
                several.join(", ")
            );
            (Paint::Red, text)
        }
    };
    let head = clock(arp.at_seconds).add(Paint::Cyan, "ARP  ");
    let column = head.width();
    let mut texts = wrap(&text, width.saturating_sub(column), 0).into_iter();
    let first = head.add(paint, texts.next().unwrap_or_default());
    let rest = texts.map(|text| Line::new().pad_to(column).add(paint, text));
    std::iter::once(first).chain(rest).collect()
}

fn seen_lines(seen: &Seen) -> Vec<Line> {
    vec![
        clock(seen.at_seconds)
            .add(Paint::Cyan, format!("{}  ", seen.what))
            .plain(format!(
                "{} → {}: {} (frame {})",
                seen.from, seen.to, seen.detail, seen.frame
            )),
    ]
}

/// Who served how many, way by way.
fn distribution(summary: &Summary) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut services: Vec<(&str, String, String)> = Vec::new();
    let most = summary.ways.iter().map(|way| way.connections).max();
    for way in &summary.ways {
        let key = (way.service.as_str(), way_label(way), way.client.clone());
        if services.contains(&key) {
            continue;
        }
        services.push(key.clone());
        lines.push(
            Line::new()
                .add(Paint::Bold, format!("{}  ", way.service))
                .plain(key.1.clone()),
        );
        let same = summary.ways.iter().filter(|other| {
            (
                other.service.as_str(),
                way_label(other),
                other.client.clone(),
            ) == key
        });
        for way in same {
            let server = way.server.as_deref().unwrap_or("nobody");
            let bar = (way.connections * BAR_CHARS_MAX).div_ceil(most.unwrap_or(1).max(1));
            let bar = usize::try_from(bar.min(way.connections.max(1))).unwrap_or(1);
            lines.push(
                Line::new()
                    .plain("    ")
                    .add(Paint::Green, format!("{server:<16} "))
                    .add(Paint::Cyan, "█".repeat(bar))
                    .plain(format!(" {}", way.connections)),
            );
        }
    }
    if let Some(latency) = &summary.latency {
        lines.push(Line::new().plain(format!(
            "    answered after {} (median), {} to {}, 99 % within {}",
            seconds(latency.median),
            seconds(latency.min),
            seconds(latency.max),
            seconds(latency.p99)
        )));
    }
    lines
}

fn way_label(way: &WayCount) -> String {
    let method = method_label(way.method, way.encapsulation.map(Tunnel::word));
    match &way.director {
        Some(director) => format!(
            "{method} by {director}, answers {}",
            way.replies.word().replace("the director", "it")
        ),
        None => method,
    }
}

fn endings(summary: &Summary) -> Option<Line> {
    let counts = [
        (summary.refused, "refused"),
        (summary.unanswered, "without an answer"),
        (summary.reset, "cut by a reset"),
        (summary.retransmissions, "segments sent again"),
    ];
    let said: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!said.is_empty()).then(|| Line::new().add(Paint::Red, format!("    {}", said.join(", "))))
}

fn owners_line(owners: &Owners) -> Vec<Line> {
    let stations: Vec<String> = owners
        .stations
        .iter()
        .map(|owner| format!("{} ({})", owner.station, owner.mac))
        .collect();
    let line = Line::new().add(Paint::Cyan, "ARP  ");
    match &stations[..] {
        [one] if owners.host.is_none() => vec![line.plain(format!(
            "{} is answered for by {one}, nobody else",
            owners.address
        ))],
        // A machine that answers for its own address is no news.
        [_] | [] => Vec::new(),
        several => vec![
            line.add(
                Paint::Red,
                format!("{}: {} stations answered", owners.address, several.len()),
            )
            .plain(format!(": {}", several.join(", "))),
        ],
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

fn frames(count: u64) -> String {
    match count {
        1 => "1 frame".to_owned(),
        _ => format!("{count} frames"),
    }
}

fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..1_048_576 => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / KIB / KIB),
    }
}

/// Breaks a text between words; the first line has less room by what stands before it.
fn wrap(text: &str, width: usize, before_first: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let before = if lines.len() == 1 { before_first } else { 0 };
        let line = lines.last_mut().expect("there is a line");
        let length = line.chars().count() + word.chars().count() + 1 + before;
        if !line.is_empty() && length > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::scene::*;
    use super::*;

    fn lines(width: usize, colour: bool) -> Vec<String> {
        let mut frames = vec![arp_question(CLIENT, VIP), arp_answer(DIRECTOR, CLIENT, VIP)];
        frames.extend(tunnelled());
        let (_, events, summary) = explained(&frames);
        let mut view = View::new(Style { width, colour });
        let mut lines: Vec<String> = events.iter().flat_map(|event| view.event(event)).collect();
        lines.extend(view.summary(&summary, "br0"));
        lines
    }

    #[test]
    fn a_way_is_shown_hop_by_hop() {
        let expected =
            "    0.000  ARP  client asks who has 10.0.0.1: director (52:54:00:00:01:00) answers, nobody else

    0.002  #1   GET / of 10.0.0.1:80: 200 OK from server after 5.0 ms
    client   ─▶ director   10.0.0.254:40000 → 10.0.0.1:80
                           52:54:00:00:fe:00 → 52:54:00:00:01:00  TTL 64  frame 3 and 2 more
    director ─▶ server     10.0.0.254:40000 → 10.0.0.1:80  inside IPIP 10.0.0.10 → 10.0.0.20
                           52:54:00:00:01:00 → 52:54:00:00:02:00  TTL 63  frame 4 and 2 more
    client   ◀─ server     10.0.0.1:80 → 10.0.0.254:40000
                           52:54:00:00:02:00 → 52:54:00:00:fe:00  TTL 64  frame 5 and 2 more
    LVS-TUN (IPIP): director put the request into IPIP 10.0.0.10 → 10.0.0.20; server answered the
    client itself, past the director

── 11 frames, 679 B, in 10.0 ms on br0 ─────────────────────────────────────────────────────────────
10.0.0.1:80  LVS-TUN (IPIP) by director, answers past it
    server           █ 1
    answered after 5.0 ms (median), 5.0 ms to 5.0 ms, 99 % within 5.0 ms
ARP  10.0.0.1 is answered for by director (52:54:00:00:01:00), nobody else";
        assert_eq!(lines(100, false).join("\n"), expected);
    }

    #[test]
    fn one_frame_is_said_of_one() {
        let (_, _, summary) = explained(&[arp_question(CLIENT, VIP)]);
        let style = Style {
            width: 100,
            colour: false,
        };
        let first = View::new(style).summary(&summary, "br0");
        let head = first.iter().find(|line| line.starts_with("──"));
        let head = head.expect("a heading");
        assert!(head.starts_with("── 1 frame, "), "{head}");
    }

    #[test]
    fn eighty_columns_are_enough() {
        for line in lines(80, false) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn colour_changes_no_letter() {
        let plain = lines(100, false).join("\n");
        let coloured = lines(100, true).join("\n");
        assert_ne!(plain, coloured);
        let letters: String = coloured
            .split('\x1b')
            .enumerate()
            .map(|(index, part)| match part.split_once('m') {
                Some((_, rest)) if index > 0 => rest,
                _ => part,
            })
            .collect();
        assert_eq!(letters, plain);
    }

    #[test]
    fn a_way_that_was_shown_is_named() {
        let (requests, ..) = explained(&tunnelled());
        let mut view = View::new(Style {
            width: 100,
            colour: false,
        });
        let first = Event::Request(Box::new(requests[0].clone()));
        let mut second = requests[0].clone();
        second.number = 2;
        assert!(view.event(&first).len() > 5);
        let again = view.event(&Event::Request(Box::new(second)));
        assert!(
            again
                .last()
                .is_some_and(|line| line.ends_with("the way of #1")),
            "{again:?}"
        );
    }
}
