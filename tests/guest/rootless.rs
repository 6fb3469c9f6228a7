//! A lab of an ordinary user's: root stays out of it.
//!
//! The user exists in a mount namespace of the test's own alone, with subordinate numbers and a
//! `/dev/net/tun` that everybody may open, so nothing of the host is changed. Image and warm
//! state are copied from root's cache: how a user builds them is the same program's other path.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::exercises::recap;
use crate::support::programs::program;
use crate::support::{Finished, cache_home, finish};
use crate::trial;

const USER: u32 = 23_456;

/// Becomes the user: arguments are the folder, then the command.
const ENTER: &str = r#"set -e
folder=$1; shift
mount --bind "$folder/tun" /dev/net/tun
for file in passwd group subuid subgid; do
  [ ! -e "/etc/$file" ] || mount --bind "$folder/$file" "/etc/$file"
done
exec setpriv --reuid 23456 --regid 23456 --clear-groups -- "$@"
"#;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "an_ordinary_user_runs_exercise_01_end_to_end",
        exercise_01,
    )]
}

#[expect(
    clippy::print_stderr,
    reason = "the reason of a skip is for the reader of the run"
)]
fn exercise_01() {
    if !nix_is_root() {
        eprintln!("skipped: only root can become another user; the other tests are rootless then");
        return;
    }
    let user = User::new();
    let refused = user.run("true", &[]);
    if refused.code != 0 {
        eprintln!("skipped: no user of the test's own can be made here: {refused}");
        return;
    }
    user.halab(&["up"]).success();
    let status = user.halab(&["--json", "status"]).success();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let pid = status["machines"][0]["pid"].as_i64().expect("it runs");
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{pid}")).expect("the QEMU"),
    );
    assert_eq!(owner, USER, "QEMU is the user's");
    let output = user.halab(&["run", "01-lvs-dr"]).success();
    assert_eq!(recap(&output).len(), 3, "{output}");
    let again = user
        .halab(&["run", "01-lvs-dr", "--tags", "setup"])
        .success();
    for (host, counts) in recap(&again) {
        assert_eq!(counts["changed"], 0, "{host}\n{again}");
    }
    user.halab(&["fault", "loss", "saisp-vm-2", "eth0", "100"])
        .success();
    let ask = [
        "shell",
        "--",
        "curl",
        "-s",
        "--max-time",
        "3",
        "http://10.0.0.20/",
    ];
    assert_ne!(user.halab(&ask).code, 0, "every packet is lost");
    user.halab(&["reset"]).success();
    assert_eq!(user.halab(&ask).code, 0, "reset mends it");
    user.halab(&["down", "--purge"]).success();
}

fn nix_is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc")) == 0
}

/// A user with a home, programs that they may run, and a copy of the cache.
struct User {
    folder: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("halab-user-")
            .tempdir()
            .expect("a folder");
        let path = folder.path();
        open_to_all(path);
        for name in ["halab", "halab-agent"] {
            fs::copy(program(name), path.join(name)).expect("copied");
            open_to_all(&path.join(name));
        }
        let append = |file: &str, line: &str| {
            let mut text = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
            text.push_str(line);
            fs::write(path.join(file), text).expect("written");
        };
        append(
            "passwd",
            &format!("halab-test:x:{USER}:{USER}::/nonexistent:/bin/sh\n"),
        );
        append("group", &format!("halab-test:x:{USER}:\n"));
        append("subuid", "halab-test:300000:65536\n");
        append("subgid", "halab-test:300000:65536\n");
        let cache = path.join("cache");
        fs::create_dir(&cache).expect("created");
        let done = finish(shell(&format!(
            "cp -r --reflink=auto {from}/halab {to}/ && rm -rf {to}/halab/lab-* \
             && mkdir {state} && chown -R {USER}:{USER} {to} {state} \
             && mknod {folder}/tun c 10 200 && chmod 666 {folder}/tun",
            from = cache_home().display(),
            to = cache.display(),
            state = path.join("state").display(),
            folder = path.display(),
        )));
        done.success();
        Self { folder }
    }

    fn halab(&self, args: &[&str]) -> Finished {
        self.run(self.folder.path().join("halab"), args)
    }

    fn run(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Finished {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", ENTER, "enter"])
            .arg(self.folder.path())
            .arg(program)
            .args(args)
            .env("HOME", self.folder.path())
            .env("HALAB_LAB", "rootless")
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("HALAB_DIR")
            .current_dir("/")
            .stdin(Stdio::null());
        finish(command)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.folder.path().join("state/halab").exists() {
            let _ = self.halab(&["down", "--purge"]);
        }
    }
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permitted");
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}
