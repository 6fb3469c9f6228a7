//! Modules whose material is on this machine: it is read or rendered here and sent as the
//! content of a simpler module.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::action::Call;
use super::executor::{Run, Trouble};
use super::result::{self, Object};
use crate::playbook::files::{self, SourceLoader};
use crate::playbook::render::TemplateOptions;
use crate::playbook::vars::{Scope, Variable};
use crate::task::heartbeat::File;

/// Most files a directory may bring along: one task a file is sent.
const FILES_MAX: usize = 10_000;

/// Does a staged module; `None`: the module needs nothing of this machine.
pub(super) async fn perform(
    run: &Run<'_>,
    call: &Call,
    module: &str,
    args: &Object,
    scope: &Scope,
) -> Result<Option<Object>, Trouble> {
    match module {
        "template" => template(run, call, args, scope).await.map(Some),
        "copy" if !result::flag(args, "remote_src") && args.contains_key("src") => {
            copy(run, call, args, scope).await.map(Some)
        }
        "heartbeat" => heartbeat(run, call, args, scope).await.map(Some),
        "script" => script(run, call, args, scope).await.map(Some),
        "fetch" => fetch(run, call, args).await.map(Some),
        "packet_check" => packet_check(run, call, args, scope).await.map(Some),
        _ => Ok(None),
    }
}

/// Sends along who is who: the inventory's names, where the task has none of its own.
async fn packet_check(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    scope: &Scope,
) -> Result<Object, Trouble> {
    let mut args = args.clone();
    if !args.contains_key("hosts") {
        let mut hosts = Object::new();
        for name in scope.hosts() {
            let Some(of_host) = scope.of_host(name) else {
                continue;
            };
            let value = |variable: &str| match of_host.get(variable) {
                Some(Variable::Found(value)) => Some(value.clone()),
                _ => None,
            };
            let addresses = value("lab_addresses").or_else(|| {
                // Of an inventory that is no lab; a name there says nothing on the wire.
                let address = value("ansible_host")?;
                address.as_str()?.parse::<IpAddr>().ok()?;
                Some(json!([address]))
            });
            if let Some(addresses) = addresses {
                let macs = value("lab_macs").unwrap_or_else(|| json!([]));
                hosts.insert(
                    name.to_owned(),
                    json!({"addresses": addresses, "macs": macs}),
                );
            }
        }
        args.insert("hosts".to_owned(), Value::Object(hosts));
    }
    args.insert("_own_name".to_owned(), call.host.as_str().into());
    call.send(run, "packet_check", args, Vec::new()).await
}

fn refuse(reason: impl Into<String>) -> Trouble {
    Trouble::Result(result::failed(reason))
}

fn text<'args>(args: &'args Object, name: &str) -> &'args str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn folders<'scope>(run: &'scope Run<'_>, scope: &'scope Scope) -> [&'scope str; 2] {
    [run.job.task.folder.as_str(), scope.playbook_folder()]
}

/// Finds a file or directory where Ansible looks for it.
fn find(run: &Run<'_>, scope: &Scope, kind: &str, name: &str) -> Result<String, Trouble> {
    let paths = files::candidates(kind, name, &folders(run, scope));
    let found = paths.iter().find(|path| Path::new(path).exists());
    found.cloned().ok_or_else(|| {
        refuse(format!(
            "could not find `{name}` on this machine; looked for {}",
            paths.join(", ")
        ))
    })
}

/// Arguments that a copy takes over from the staged module.
fn copy_args(args: &Object, basename: &str) -> Object {
    const TAKEN_OVER: &[&str] = &[
        "dest",
        "mode",
        "owner",
        "group",
        "backup",
        "validate",
        "force",
        "follow",
        "checksum",
        "directory_mode",
    ];
    let mut copied: Object = args
        .iter()
        .filter(|(name, _)| TAKEN_OVER.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    copied.insert("_content_in_body".to_owned(), Value::Bool(true));
    copied.insert("_original_basename".to_owned(), basename.into());
    copied.entry("remote_src").or_insert(Value::Bool(false));
    copied
}

fn basename(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

/// What marks expressions, blocks and comments, and cannot be changed.
const MARKERS: &[(&str, &str)] = &[
    ("variable_start_string", "{{"),
    ("variable_end_string", "}}"),
    ("block_start_string", "{%"),
    ("block_end_string", "%}"),
    ("comment_start_string", "{#"),
    ("comment_end_string", "#}"),
];

async fn template(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    scope: &Scope,
) -> Result<Object, Trouble> {
    let src = find(run, scope, "templates", text(args, "src"))?;
    for (name, usual) in MARKERS {
        if text(args, name) != *usual {
            return Err(refuse(format!(
                "`template` reads `{usual}` only, `{name}` cannot change it"
            )));
        }
    }
    let options = TemplateOptions {
        trim_blocks: result::flag(args, "trim_blocks"),
        lstrip_blocks: result::flag(args, "lstrip_blocks"),
        ..TemplateOptions::default()
    };
    let read = run.services.loader.read(&src);
    let body = read.map_err(|reason| refuse(format!("failed to read {src}: {reason}")))?;
    let folders = folders(run, scope);
    let renderer = &run.services.renderer;
    let mut rendered = renderer.template_file(&src, &body, options, scope, &folders)?;
    let newline = text(args, "newline_sequence");
    if newline != "\n" {
        rendered = rendered.replace('\n', newline);
    }
    let copied = copy_args(args, basename(&src));
    let mut done = call
        .send(run, "copy", copied, rendered.into_bytes())
        .await?;
    name_source(&mut done, &run.services.loader.absolute(&src));
    Ok(done)
}

/// Renders the files that are given as templates; the agent gets texts.
async fn heartbeat(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    scope: &Scope,
) -> Result<Object, Trouble> {
    let mut args = args.clone();
    for file in File::ALL {
        let argument = format!("{}_template", file.argument());
        let Some(Value::String(name)) = args.remove(&argument) else {
            continue;
        };
        let src = find(run, scope, "templates", &name)?;
        let read = run.services.loader.read(&src);
        let body = read.map_err(|reason| refuse(format!("failed to read {src}: {reason}")))?;
        let options = TemplateOptions {
            trim_blocks: true,
            ..TemplateOptions::default()
        };
        let folders = folders(run, scope);
        let renderer = &run.services.renderer;
        let text = renderer.template_file(&src, &body, options, scope, &folders)?;
        args.insert(file.argument().to_owned(), text.into());
    }
    call.send(run, "heartbeat", args, Vec::new()).await
}

/// Says in a diff where the new content came from.
fn name_source(done: &mut Object, path: &str) {
    let diffs: Vec<&mut Value> = match done.get_mut("diff") {
        Some(Value::Array(diffs)) => diffs.iter_mut().collect(),
        Some(single) => vec![single],
        None => Vec::new(),
    };
    for diff in diffs {
        if diff.get("after").is_some_and(Value::is_string) {
            diff["after_header"] = path.into();
        }
    }
}

async fn copy(run: &Run<'_>, call: &Call, args: &Object, scope: &Scope) -> Result<Object, Trouble> {
    let written = text(args, "src");
    let src = find(run, scope, "files", written.trim_end_matches('/'))?;
    if Path::new(&src).is_dir() {
        let content_only = written.ends_with('/');
        return copy_directory(run, call, args, &src, content_only).await;
    }
    copy_file(run, call, args, &src).await
}

async fn copy_file(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    src: &str,
) -> Result<Object, Trouble> {
    let body = fs::read(src).map_err(|error| refuse(format!("failed to read {src}: {error}")))?;
    let mut copied = copy_args(args, basename(src));
    if text(args, "mode") == "preserve" {
        copied.insert("mode".to_owned(), mode_of(src)?.into());
    }
    let mut done = call.send(run, "copy", copied, body).await?;
    name_source(&mut done, &run.services.loader.absolute(src));
    Ok(done)
}

fn mode_of(path: &str) -> Result<String, Trouble> {
    let metadata =
        fs::metadata(path).map_err(|error| refuse(format!("failed to read {path}: {error}")))?;
    Ok(format!("{:04o}", metadata.permissions().mode() & 0o7777))
}

/// Sends a directory: its folders first, then its files, as Ansible does.
async fn copy_directory(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    src: &str,
    content_only: bool,
) -> Result<Object, Trouble> {
    let (mut directories, mut below) = (Vec::new(), Vec::new());
    let top = if content_only { "" } else { basename(src) };
    walk(src, top, &mut directories, &mut below)?;
    let dest = text(args, "dest").trim_end_matches('/').to_owned();
    let mut changed = false;
    let mut diffs = Vec::new();
    let mut keep = |done: &mut Object| {
        changed |= result::flag(done, "changed");
        if let Some(Value::Array(found)) = done.remove("diff") {
            diffs.extend(found);
        }
    };
    for relative in directories {
        let mut directory = result::object(json!({
            "path": files::join(&dest, &relative),
            "state": "directory",
            "recurse": false,
            "follow": true,
            "force": false,
        }));
        for (name, from) in [
            ("mode", "directory_mode"),
            ("owner", "owner"),
            ("group", "group"),
        ] {
            if let Some(value) = args.get(from) {
                directory.insert(name.to_owned(), value.clone());
            }
        }
        let mut done = call.send(run, "file", directory, Vec::new()).await?;
        if result::flag(&done, "failed") {
            return Ok(done);
        }
        keep(&mut done);
    }
    for (path, relative) in below {
        let mut one = args.clone();
        one.insert("dest".to_owned(), files::join(&dest, &relative).into());
        let mut done = copy_file(run, call, &one, &path).await?;
        if result::flag(&done, "failed") {
            return Ok(done);
        }
        keep(&mut done);
    }
    let mut done = result::object(json!({"changed": changed, "dest": dest, "src": src}));
    if call.diff {
        done.insert("diff".to_owned(), diffs.into());
    }
    Ok(done)
}

/// Lists a directory: folders from the outside in, and files (path here, path below).
fn walk(
    path: &str,
    relative: &str,
    directories: &mut Vec<String>,
    below: &mut Vec<(String, String)>,
) -> Result<(), Trouble> {
    if !relative.is_empty() {
        directories.push(relative.to_owned());
    }
    let entries =
        fs::read_dir(path).map_err(|error| refuse(format!("failed to list {path}: {error}")))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        let inner = files::join(path, &name);
        let relative = files::join(relative, &name);
        if Path::new(&inner).is_dir() {
            walk(&inner, &relative, directories, below)?;
        } else {
            below.push((inner, relative));
        }
        if below.len() + directories.len() > FILES_MAX {
            return Err(refuse(format!(
                "more than {FILES_MAX} files below {path}; send an archive instead"
            )));
        }
    }
    Ok(())
}

async fn script(
    run: &Run<'_>,
    call: &Call,
    args: &Object,
    scope: &Scope,
) -> Result<Object, Trouble> {
    let line = text(args, "cmd");
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let src = find(run, scope, "files", name)?;
    if call.check {
        return Ok(result::object(
            json!({"changed": true, "skipped": true, "msg": "running a script is not done in check mode"}),
        ));
    }
    let body = fs::read(&src).map_err(|error| refuse(format!("failed to read {src}: {error}")))?;
    let path = format!("/tmp/.halab-script-{}-{}", run.job.id.0, basename(&src));
    let put = copy_args(
        &result::object(
            json!({"dest": path, "mode": "0700", "force": true, "backup": false, "follow": false}),
        ),
        basename(&src),
    );
    let done = call.send(run, "copy", put, body).await?;
    if result::flag(&done, "failed") {
        return Ok(done);
    }
    let interpreter = text(args, "executable");
    let mut command = result::object(json!({
        "cmd": format!("{interpreter} {path} {rest}").trim(),
        "strip_empty_ends": true,
        "stdin_add_newline": true,
        "expand_argument_vars": true,
    }));
    for name in ["creates", "removes", "chdir"] {
        if let Some(value) = args.get(name) {
            command.insert(name.to_owned(), value.clone());
        }
    }
    let done = call.send(run, "command", command, Vec::new()).await;
    let away = result::object(
        json!({"path": path, "state": "absent", "recurse": false, "follow": true, "force": false}),
    );
    // The script has run; a left-over file in /tmp does not change its result.
    let _ = call.send(run, "file", away, Vec::new()).await;
    let mut done = done?;
    for name in ["cmd", "start", "end", "delta", "msg"] {
        done.remove(name);
    }
    Ok(done)
}

async fn fetch(run: &Run<'_>, call: &Call, args: &Object) -> Result<Object, Trouble> {
    if call.check {
        return Ok(result::object(
            json!({"changed": false, "skipped": true, "msg": "check mode not (yet) supported for this module"}),
        ));
    }
    let src = text(args, "src");
    let slurp = result::object(json!({"src": src}));
    let done = call.send(run, "slurp", slurp, Vec::new()).await?;
    if result::flag(&done, "failed") {
        let required = result::flag(args, "fail_on_missing");
        let msg = text(&done, "msg").to_owned();
        return Ok(result::object(
            json!({"changed": false, "failed": required, "msg": msg}),
        ));
    }
    let content = base64(text(&done, "content"))
        .ok_or_else(|| refuse(format!("what came of {src} is not base64")))?;
    let dest = text(args, "dest");
    let path = if result::flag(args, "flat") {
        if dest.ends_with('/') {
            format!("{dest}{}", basename(src))
        } else {
            dest.to_owned()
        }
    } else {
        format!(
            "{}/{}/{}",
            dest.trim_end_matches('/'),
            run.job.host,
            src.trim_start_matches('/')
        )
    };
    let changed = fs::read(&path).map_or(true, |old| old != content);
    if changed {
        let folder = Path::new(&path).parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, &content))
            .map_err(|error| refuse(format!("failed to write {path}: {error}")))?;
    }
    Ok(result::object(
        json!({"changed": changed, "dest": run.services.loader.absolute(&path)}),
    ))
}

/// Decodes standard base64; `None` when it is none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for each in text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
    {
        let value = match each {
            b'A'..=b'Z' => each - b'A',
            b'a'..=b'z' => each - b'a' + 26,
            b'0'..=b'9' => each - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("eight bits were kept"));
        }
    }
    Some(bytes)
}

/// The files `include_vars` reads: the one named, or those of a directory in order.
pub(super) fn variable_files(
    loader: &dyn SourceLoader,
    args: &Object,
    folders: &[&str],
) -> Result<Vec<String>, String> {
    if let Some(file) = args.get("file").and_then(Value::as_str) {
        return files::find(loader, "vars", file, folders)
            .map(|path| vec![path])
            .map_err(|paths| {
                format!(
                    "could not find the variables' file `{file}`; looked for {}",
                    paths.join(", ")
                )
            });
    }
    let dir = text(args, "dir");
    let paths = files::candidates("vars", dir, folders);
    let dir = paths
        .iter()
        .find(|path| loader.is_directory(path))
        .ok_or_else(|| {
            format!(
                "there is no directory `{dir}`; looked for {}",
                paths.join(", ")
            )
        })?;
    let extensions = super::keyword::names(args.get("extensions").unwrap_or(&Value::Null));
    let has_extension = |name: &String| {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        extension.is_some_and(|extension| extensions.iter().any(|each| each == extension))
    };
    let names = loader.list(dir).into_iter().filter(has_extension);
    Ok(names.map(|name| files::join(dir, &name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(base64("aGVs\nbG8h").as_deref(), Some(&b"hello!"[..]));
        assert_eq!(base64("a*"), None);
    }

    #[test]
    fn a_directory_is_walked_from_the_outside_in() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(dir.path().join("a/b")).expect("made");
        fs::write(dir.path().join("a/b/f"), "x").expect("written");
        let (mut directories, mut below) = (Vec::new(), Vec::new());
        let path = dir.path().to_string_lossy();
        assert!(walk(&path, "", &mut directories, &mut below).is_ok());
        assert_eq!(directories, ["a", "a/b"]);
        assert_eq!(below[0].1, "a/b/f");
    }
}
