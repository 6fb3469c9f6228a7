//! Modules as data and decisions: which there are, what they take, and what each would
//! change given the facts of a host. Nothing here touches a host; `agent` does.

pub mod accounts;
pub mod args;
pub mod arp;
pub mod attributes;
pub mod blockinfile;
pub mod coerce;
pub mod command;
pub mod copy;
pub mod expand;
pub mod facts;
pub mod file;
pub mod find;
pub mod http;
pub mod http_check;
pub mod iptables;
pub mod ipvs;
pub mod kind;
pub mod lineinfile;
pub mod link;
pub mod mode;
pub mod mount;
pub mod outcome;
pub mod package;
pub mod pattern;
pub mod replace;
pub mod rtnetlink;
pub mod service;
pub mod sysctl;
pub mod table;
pub mod text;
pub mod time;
pub mod uri;
pub mod user;
pub mod wait;
pub mod wildcard;
