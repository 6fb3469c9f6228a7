//! `packet_check`: watches an interface while a request is made, and judges what passed.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::super::error::ModuleError;
use super::super::net::resolve;
use super::super::netlink::RouteSocket;
use super::super::work::Work;
use super::arp::ask;
use super::http::run_all;
use super::network::unknown_interface;
use crate::capture::frame::Mac;
use crate::capture::names::Names;
use crate::capture::path::{Explained, Interface};
use crate::capture::socket::{FRAME_BYTES_MAX, PacketSocket};
use crate::capture::text::{Style, View};
use crate::capture::tracker::{Event, Tracker};
use crate::task::args::Args;
use crate::task::http::Url;
use crate::task::kind;
use crate::task::outcome::{Outcome, Refusal};
use crate::task::packet_check::{Expectation, Seen, outcome};

/// How long to wait for a frame before looking whether all is done.
const PATIENCE: Duration = Duration::from_millis(20);
/// After the last request's end: what is still under way is seen within this time.
const SETTLE: Duration = Duration::from_millis(300);
/// Connections that are kept for the verdict.
const REQUESTS_MAX: usize = 10_000;
/// Lines of explanation in the result.
const LINES_MAX: usize = 200;
/// A terminal's usual width, and room for the longest hop.
const WIDTH: usize = 100;

pub(super) fn packet_check(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let expectation = Expectation::from_args(args)?;
    let interface = args.word("interface");
    let mut names = match args.get("hosts") {
        Some(hosts) => {
            Names::from_value(hosts).map_err(|reason| Refusal::new(format!("`hosts`: {reason}")))?
        }
        None => Names::default(),
    };
    let mut routes = RouteSocket::open()?;
    let links = routes.links()?;
    let Some(link) = links.into_iter().find(|link| link.name == interface) else {
        return Err(unknown_interface(&mut routes, interface)?);
    };
    if let (Some(own), Some(mac)) = (args.text("_own_name"), Mac::parse(&link.station)) {
        names.add_station(mac, own);
    }
    let request = args.dict("request").map(http_args).transpose()?;
    let service = request.as_ref().map(service_of).transpose()?;
    let address = args.text("arp").map(address).transpose()?;
    let failed = ModuleError::system(format!("watch {interface}"));
    let socket = PacketSocket::open(interface).map_err(failed)?;

    let limit = Duration::from_secs_f64(args.seconds("seconds").unwrap_or(5.0));
    let watch = Watch {
        work,
        socket,
        tracker: Tracker::new(
            names,
            vec![Interface {
                name: interface.to_owned(),
                ..Interface::default()
            }],
        ),
        view: View::new(Style {
            width: WIDTH,
            colour: false,
        }),
        requests: Vec::new(),
        lines: Vec::new(),
    };
    let done = AtomicBool::new(request.is_none() && address.is_none());
    let seen = thread::scope(|scope| {
        let made = scope.spawn(|| {
            let made = provoke(work, interface, address, request.as_ref());
            done.store(true, Ordering::Release);
            made
        });
        let is_waiting = request.is_some() || address.is_some();
        let seen = watch.run(limit, is_waiting.then_some(&done));
        made.join().expect("making requests does not panic")?;
        seen
    })?;
    Ok(outcome(&of_service(seen, service.as_deref()), &expectation))
}

/// What makes packets pass while it is watched.
fn provoke(
    work: &Work,
    interface: &str,
    address: Option<Ipv4Addr>,
    request: Option<&Map<String, Value>>,
) -> Result<(), ModuleError> {
    if let Some(address) = address {
        ask(work, interface, address, 2, Duration::from_millis(500))?;
    }
    if let Some(request) = request {
        run_all(Args(request), &work.lifeline)?;
    }
    Ok(())
}

/// Brings the arguments of `request` into the shape of `http_check`'s.
fn http_args(given: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let spec = kind::lookup("http_check").expect("http_check is a module");
    kind::coerce(spec, given).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Refusal::new(format!("`request`: {}", problems.join("; ")))
    })
}

/// Returns the address and port that a request goes to.
fn service_of(request: &Map<String, Value>) -> Result<String, ModuleError> {
    let url = Url::parse(Args(request).word("url"))?;
    Ok(std::net::SocketAddr::new(resolve(&url.host)?, url.port).to_string())
}

fn address(text: &str) -> Result<Ipv4Addr, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(format!("`arp`: `{text}` is not an IPv4 address")))
}

/// Leaves the connections that count.
fn of_service(mut seen: Seen, service: Option<&str>) -> Seen {
    if let Some(service) = service {
        seen.requests.retain(|request| request.service == service);
    }
    seen
}

struct Watch<'a> {
    work: &'a Work,
    socket: PacketSocket,
    tracker: Tracker,
    view: View,
    requests: Vec<Explained>,
    lines: Vec<String>,
}

impl Watch<'_> {
    /// Watches until `done` is set and all is quiet, or the time is over.
    fn run(mut self, limit: Duration, done: Option<&AtomicBool>) -> Result<Seen, ModuleError> {
        let failed = || ModuleError::system("receive frames".to_owned());
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let begun = Instant::now();
        let mut done_at: Option<Instant> = None;
        loop {
            self.work.lifeline.check()?;
            if done.is_some_and(|done| done.load(Ordering::Acquire)) {
                done_at.get_or_insert_with(Instant::now);
            }
            let is_over = match (done, done_at) {
                (None, _) => begun.elapsed() >= limit,
                (Some(_), Some(at)) => at.elapsed() >= SETTLE,
                // What was begun ends by its own deadlines.
                (Some(_), None) => false,
            };
            if is_over {
                break;
            }
            let received = self.socket.receive(&mut buffer).map_err(failed())?;
            if let Some(received) = received {
                let bytes = &buffer[..received.captured];
                self.tracker.take(received.at, 0, bytes, received.length);
            } else {
                self.tracker.tick(now());
                self.socket.wait(PATIENCE).map_err(failed())?;
            }
            self.note();
        }
        let dropped = self.socket.dropped().map_err(failed())?;
        let summary = self.tracker.finish(dropped);
        self.note();
        self.lines.extend(self.view.summary(&summary, "the wire"));
        Ok(Seen {
            requests: self.requests,
            summary,
            explanation: self.lines,
        })
    }

    fn note(&mut self) {
        for event in self.tracker.events() {
            if self.lines.len() < LINES_MAX {
                self.lines.extend(self.view.event(&event));
            }
            if let Event::Request(explained) = event
                && self.requests.len() < REQUESTS_MAX
            {
                // Told a second time, it has more to tell.
                self.requests
                    .retain(|known| known.number != explained.number);
                self.requests.push(*explained);
            }
        }
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
