//! The agent inside a guest: one program that answers to several names.
//!
//! Called as `ipvsadm` (by a link of that name), or as `halab-agent ipvsadm …`, it is ipvsadm.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use halab::ipvs;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments
        .first()
        .and_then(|name| Path::new(name).file_name());
    if called.is_some_and(|name| name == "ipvsadm") {
        return ipvs::command::main(arguments).into();
    }
    match arguments.get(1).and_then(|name| name.to_str()) {
        Some("ipvsadm") => ipvs::command::main(arguments.into_iter().skip(1)).into(),
        _ => ExitCode::from(2),
    }
}
