//! What is on the wire, explained: frames in, the way of each request out.
//!
//! ```text
//!  socket ──► frame ──► tracker ──► Event ──► text (a terminal), json
//!    │          │          │  └─ conversation ──► path: hops, and what they prove
//!    │        names        └─ a remark on a frame
//!    └────────────────────────────► pcapng (each frame with its remark)
//! ```
//!
//! Both programs use it: `halab capture` on a network of the lab, the agent's `packet_check` on
//! whatever host it runs. Only [`socket`] touches the outside.
//!
//! # What a vantage point proves
//!
//! * A bridge (`br0`) passes each frame once, whichever ports it comes from and goes to: a frame
//!   seen there was sent by the station it names. It does not prove that it arrived: what `tc` drops on the
//!   way to a machine (`halab fault loss`) was on the bridge all the same.
//! * A machine's cable (its tap) carries what the machine sent, and what really reached it.
//!
//! Where several are watched, one frame is seen several times. The same bytes of interest (stations, addresses,
//! numbers of IP and TCP) on *another* interface are the same frame; on the *same* interface they were sent twice.

pub mod arp;
pub mod conversation;
pub mod frame;
pub mod names;
pub mod path;
#[cfg(feature = "orchestrator")]
pub mod pcapng;
#[cfg(test)]
pub(crate) mod scene;
pub mod segments;
pub mod socket;
pub mod summary;
pub mod text;
pub mod tracker;
