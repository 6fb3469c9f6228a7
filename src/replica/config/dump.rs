//! The configuration as `drbdadm dump` prints it; secrets are left out.

use std::fmt::Write as _;

use super::model::{
    Configuration, Host, HostKind, Meta, Node, Resource, Section, Sections, Setting, Volume,
};
use super::options::Kind;

/// What stands in place of a secret.
const HIDDEN: &str = "\"(not shown)\"";

/// The order drbdadm has.
const ORDER: [Section; 4] = [
    Section::Options,
    Section::Net,
    Section::Disk,
    Section::Startup,
];

/// Prints everything, or one resource.
pub fn dump(configuration: &Configuration, only: Option<&Resource>, node: &Node) -> String {
    let mut text = String::new();
    if only.is_none() {
        let _ = writeln!(text, "# {}", configuration.path);
        if let Some(global) = &configuration.global {
            text.push_str(&global_block(global));
        }
        if let Some(common) = &configuration.common {
            text.push_str("common {\n");
            sections(&mut text, common);
            text.push_str("}\n\n");
        }
    }
    for resource in &configuration.resources {
        if only.is_none_or(|only| std::ptr::eq(only, resource)) {
            resource_block(&mut text, resource, node);
        }
    }
    text
}

/// The timeouts are what drbdadm runs with, and it prints them always.
fn global_block(settings: &[Setting]) -> String {
    let mut text = "global {\n".to_owned();
    let mut line = |name: &str, value: &str| {
        let _ = if value.is_empty() {
            writeln!(text, "    {name};")
        } else {
            writeln!(text, "    {name} {value};")
        };
    };
    let get = |name: &str| {
        settings
            .iter()
            .rev()
            .find(|setting| setting.spec.name == name)
    };
    for name in [
        "disable-ip-verification",
        "minor-count",
        "dialog-refresh",
        "usage-count",
    ] {
        if let Some(setting) = get(name) {
            line(name, &setting.value);
        }
    }
    for (name, default) in [
        ("cmd-timeout-short", ""),
        ("cmd-timeout-medium", "600"),
        ("cmd-timeout-long", "0"),
    ] {
        match get(name) {
            Some(setting) => line(name, &setting.value),
            None if !default.is_empty() => line(name, default),
            None => {}
        }
    }
    text.push_str("}\n\n");
    text
}

fn resource_block(text: &mut String, resource: &Resource, node: &Node) {
    let is_ours = resource.hosts.iter().any(|host| host.is(node));
    let ignored = if is_ours { "not ignored" } else { "ignored" };
    let name = &resource.name.text;
    let _ = writeln!(
        text,
        "# resource {name} on {}: {ignored}, not stacked",
        node.name
    );
    let place = &resource.origin;
    let _ = writeln!(text, "# defined at {}:{}", place.source.name, place.line());
    let _ = writeln!(text, "resource {} {{", quoted(name));
    for host in &resource.hosts {
        host_block(text, host);
    }
    sections(text, &resource.sections);
    text.push_str("}\n\n");
}

fn host_block(text: &mut String, host: &Host) {
    let address = address(host);
    match &host.kind {
        HostKind::On(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.text.as_str()).collect();
            let _ = writeln!(text, "    on {} {{", names.join(" "));
        }
        HostKind::Floating => {
            let _ = writeln!(text, "    floating {address} {{");
        }
    }
    for volume in &host.volumes {
        if host.explicit_volumes {
            let _ = writeln!(text, "        volume {} {{", volume.number);
            volume_lines(text, volume, 12);
            text.push_str("        }\n");
        } else {
            volume_lines(text, volume, 8);
        }
    }
    if matches!(host.kind, HostKind::On(_)) {
        let _ = writeln!(text, "        {:<16} {address};", "address");
    }
    text.push_str("    }\n");
}

fn address(host: &Host) -> String {
    let address = host.address;
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("{family} {address}")
}

fn volume_lines(text: &mut String, volume: &Volume, indent: usize) {
    // Four columns less where the volume has a block of its own.
    let width = if indent == 8 { 16 } else { 12 };
    let device = match &volume.device {
        Some(path) => format!("{path} minor {}", volume.minor),
        None => format!("minor {}", volume.minor),
    };
    let mut line = |name: &str, width: usize, value: &str| {
        let _ = writeln!(text, "{:indent$}{name:<width$} {value};", "");
    };
    line("device", width, &device);
    line("disk", width, &volume.disk);
    match &volume.meta {
        Meta::Internal => line("meta-disk", width, "internal"),
        // drbdadm's own columns are these.
        Meta::External(path) => line("meta-disk", 16, path),
        Meta::Indexed(path, index) => line("meta-disk", 16, &format!("{path} [{index}]")),
    }
}

fn sections(text: &mut String, sections: &Sections) {
    for section in ORDER {
        let Some(settings) = sections.settings.get(&section) else {
            continue;
        };
        if settings.is_empty() {
            continue;
        }
        let _ = writeln!(text, "    {} {{", section.name());
        // Names come last.
        let is_names = |setting: &&Setting| setting.spec.kind == Kind::Names;
        for setting in settings.iter().filter(|setting| !is_names(setting)) {
            setting_line(text, setting);
        }
        for setting in settings.iter().filter(is_names) {
            setting_line(text, setting);
        }
        text.push_str("    }\n");
    }
    if let Some(handlers) = &sections.handlers
        && !handlers.is_empty()
    {
        text.push_str("    handlers {\n");
        for handler in handlers {
            let (name, command) = (&handler.name.text, quoted(&handler.command.text));
            let _ = writeln!(text, "        {name:<16} {command};");
        }
        text.push_str("    }\n");
    }
}

/// Values have at least three columns, flush right: drbdadm's way with numbers.
fn setting_line(text: &mut String, setting: &Setting) {
    let value = match setting.spec.kind {
        Kind::Secret => HIDDEN.to_owned(),
        Kind::Names => setting.value.clone(),
        _ => quoted(&setting.value),
    };
    let name = setting.spec.name;
    let _ = writeln!(text, "        {name:<16} {value:>3};");
}

/// Quotes what is no plain word.
fn quoted(value: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-".contains(char);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::replica::config::check::check;
    use crate::replica::config::tree::parse;

    /// What drbdadm 9.22 printed for these files on `saisp-vm-2`; the secret was taken out.
    const RECORDED: [(&str, &str, &str); 4] = [
        (
            "full",
            include_str!("recorded/full.conf"),
            include_str!("recorded/full.dump"),
        ),
        (
            "vol",
            include_str!("recorded/vol.conf"),
            include_str!("recorded/vol.dump"),
        ),
        (
            "float",
            include_str!("recorded/float.conf"),
            include_str!("recorded/float.dump"),
        ),
        (
            "many",
            include_str!("recorded/many.conf"),
            include_str!("recorded/many.dump"),
        ),
    ];

    #[test]
    fn a_dump_is_what_drbdadm_prints() {
        let node = Node {
            name: "saisp-vm-2".to_owned(),
            addresses: vec!["10.0.23.2".parse().expect("an address")],
        };
        for (name, text, expected) in RECORDED {
            let path = format!("/tmp/conf/{name}.conf");
            let (statements, problems) = parse(&Source::new(path.as_str(), text));
            let checked = check(&path, &statements, &node, problems);
            let (configuration, _) =
                checked.unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            assert_eq!(dump(&configuration, None, &node), expected, "{name}");
        }
    }
}
