//! What students hand in: written by `halab export`, graded in labs of their own, hostile or not.

use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use halab::vm::handin::{self, Entry, HandIn, sha256_of};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Lab, finish};
use crate::topology::wait_until;
use crate::trial;

/// Twenty hand-ins of every kind, some of which only end by their limit.
const MANY: &str = "HALAB_TEST_HAND_INS";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "what_is_handed_in_is_graded_without_its_lab",
        handed_in,
    )];
    if std::env::var_os(MANY).is_some() {
        trials.push(trial("twenty_hand_ins_are_graded_unattended", twenty));
    }
    trials
}

/// One thing on the disk and one that only the memory knows.
const GRADE: &str = "
- name: A look at what was handed in
  hosts: saisp-vm-2
  gather_facts: false
  vars:
    grade: {exercise: hand-in, title: A hand-in, points: 10}
  tasks:
    - name: The file is there
      id: file
      points: 5
      command: grep -x mine /root/mine
      changed_when: false
      expected: mine
      found: nothing
      hint: [Write it.]
    - name: The address is there
      id: address
      points: 5
      shell: ip -o address show to 10.0.0.77 | grep -q .
      changed_when: false
      expected: an address
      found: none
      hint: [Give it one.]
";

/// Pieces of a disk that are nobody else's.
const WORK: &str = "echo mine > /root/mine; dd if=/dev/urandom of=/root/work bs=64k count=60 2>/dev/null; sync; ip address add 10.0.0.77/24 dev eth0";

struct Class {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Class {
    fn new(name: &str) -> Self {
        let class = Self {
            lab: Lab::new(name),
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::create_dir(class.path("in")).expect("a folder");
        // A grade file of its own each time: nothing was graded with it before.
        let text = format!("# {}\n{GRADE}", class.folder.path().display());
        fs::write(class.path("grade.yml"), text).expect("written");
        class
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hand_in(&self, name: &str) -> PathBuf {
        self.path("in").join(name)
    }

    fn export(&self, name: &str, student: &str, more: &[&str]) -> PathBuf {
        let path = self.hand_in(name);
        let mut words = vec!["export", text(&path), "--name", student, "--id", name];
        words.extend(more);
        self.lab.halab(words).success();
        path
    }

    /// The command that grades all of them.
    fn grading(&self, more: &[&str]) -> Command {
        let (grade, folder) = (self.path("grade.yml"), self.path("in"));
        let words = [
            "--json",
            "grade",
            text(&grade),
            "--submission",
            text(&folder),
        ];
        self.lab.command(words.iter().chain(more))
    }

    fn grade(&self, code: i32, more: &[&str]) -> Value {
        let finished = finish(self.grading(more));
        assert_eq!(finished.code, code, "{finished}");
        assert_eq!(self.labs(), [""; 0]);
        serde_json::from_str(&finished.stdout).expect("JSON")
    }

    /// Labs in which a hand-in is graded.
    fn labs(&self) -> Vec<String> {
        fs::read_dir(self.lab.state_dir().parent().expect("a parent"))
            .expect("the labs' folder")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("hand-in"))
            .collect()
    }

    /// Ends the grading politely once a hand-in is in its lab.
    fn end_in_the_middle(&self) {
        let mut grading = self
            .grading(&[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        wait_until("a hand-in gets a lab", || !self.labs().is_empty());
        let pid = Pid::from_raw(i32::try_from(grading.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        assert_eq!(grading.wait().expect("it ends").code(), Some(130));
        assert_eq!(self.labs(), [""; 0]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// One row of the answer.
fn row<'a>(found: &'a Value, file: &str) -> &'a Value {
    let rows = found["submissions"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["file"] == file);
    row.unwrap_or_else(|| panic!("no {file} in {found}"))
}

fn look(row: &Value) -> String {
    let reasons = row["look"].as_array().expect("a list");
    reasons
        .iter()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Writes a hand-in again with a change in its list and in its files.
fn forged(
    from: &Path,
    to: &Path,
    change_list: impl FnOnce(&mut HandIn),
    change_file: impl Fn(&HandIn, &Entry, &Path) -> bool,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let path_of = |name: &str| folder.path().join(name);
    let input = BufReader::new(File::open(from).expect("it is there"));
    let mut list = handin::unpack(
        input,
        |_| Ok(()),
        |entry| File::create(path_of(&entry.name)),
    )
    .expect("a sound hand-in");
    change_list(&mut list);
    let unchanged = list.clone();
    for entry in &mut list.files {
        let path = path_of(&entry.name);
        // Only what was changed is read again: a machine's memory is hundreds of megabytes.
        if change_file(&unchanged, entry, &path) {
            let file = File::open(&path).expect("it is there");
            (entry.bytes, entry.sha256) = sha256_of(file).expect("it is read");
        }
    }
    let out = File::create(to).expect("created");
    handin::pack(&list, |entry| File::open(path_of(&entry.name)), out).expect("packed");
}

/// Makes the top of saisp-vm-2's disk name a file of the host's below itself.
fn names_a_file_of_the_hosts(list: &HandIn, entry: &Entry, path: &Path) -> bool {
    use std::io::Write as _;
    if list.state.disks["saisp-vm-2"][0].top() != entry.name {
        return false;
    }
    let backing = b"/etc/shadow";
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("opened");
    let mut head = [0; 512];
    file.read_exact(&mut head).expect("a header");
    let at = u64::from_be_bytes(head[8..16].try_into().expect("eight"));
    file.seek(SeekFrom::Start(at)).expect("within");
    file.write_all(backing).expect("written");
    file.seek(SeekFrom::Start(16)).expect("within");
    let length = u32::try_from(backing.len()).expect("short");
    file.write_all(&length.to_be_bytes()).expect("written");
    true
}

fn handed_in() {
    let class = Class::new("handin");
    let lab = &class.lab;
    let early = class.hand_in("early.halab");
    let refused = lab.halab(["export", text(&early), "--name", "A", "--id", "1"]);
    assert!(refused.failure(2).contains("not up"));
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-2", WORK).success();
    let ana = class.export("ana.halab", "Ana Pop", &["--running"]);
    // Nothing is written over, and nobody hands in without a name.
    let again = lab.halab(["export", text(&ana), "--name", "A", "--id", "1"]);
    assert!(again.failure(2).contains("is there already"));
    let nobody = lab.halab(["export", text(&early), "--id", "1"]);
    assert!(nobody.failure(2).contains("--name"));
    assert!(!early.exists());
    class.export("bob.halab", "Bob", &["--running"]);
    class.export("disks.halab", "Dan", &[]);

    // Somebody's file under another name.
    fs::copy(&ana, class.hand_in("copy.halab")).expect("copied");
    let whole = fs::read(&ana).expect("it is there");
    fs::write(class.hand_in("cut.halab"), &whole[..whole.len() / 2]).expect("written");
    fs::write(class.hand_in("text.halab"), "my homework\n").expect("written");
    forged(
        &ana,
        &class.hand_in("shadow.halab"),
        |_| {},
        names_a_file_of_the_hosts,
    );
    forged(
        &ana,
        &class.hand_in("other.halab"),
        |list| list.image_sha256 = "0".into(),
        |_, _, _| false,
    );

    class.end_in_the_middle();
    let csv = class.path("points.csv");
    let html = class.path("pages");
    let found = class.grade(1, &["--csv", text(&csv), "--html", text(&html)]);
    for (file, points) in [
        ("ana.halab", 10.0),
        ("bob.halab", 10.0),
        ("disks.halab", 5.0),
    ] {
        assert_eq!(row(&found, file)["points"], points, "{found}");
    }
    assert_eq!(row(&found, "ana.halab")["student"]["name"], "Ana Pop");
    assert!(
        look(row(&found, "copy.halab")).contains("100 % of its work is in ana.halab too"),
        "{found}"
    );
    assert!(
        look(row(&found, "ana.halab")).contains("bob.halab"),
        "{found}"
    );
    for (file, why) in [
        ("cut.halab", "damaged"),
        ("text.halab", "no hand-in"),
        ("shadow.halab", "/etc/shadow"),
        ("other.halab", "another build of the guest image"),
    ] {
        let row = row(&found, file);
        assert!(
            row["report"].is_null() && look(row).contains(why),
            "{why}: {row}"
        );
    }
    let table = fs::read_to_string(&csv).expect("the table");
    assert_eq!(table.matches("\r\n").count(), 5, "{table}");
    assert!(html.join("ana.html").is_file());
    // What was graded is not graded again, and says the same.
    assert_eq!(class.grade(1, &[]), found);
    // The lab whose state was handed in goes on.
    lab.ssh("saisp-vm-2", "grep -x mine /root/mine").success();
}

fn twenty() {
    let class = Class::new("twenty");
    let lab = &class.lab;
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-2", WORK).success();
    let good = class.export("good.halab", "Good", &["--running"]);
    for number in 1..=13 {
        let name = format!("good-{number:02}.halab");
        let student = |list: &mut HandIn| list.student_id = format!("id-{number}");
        forged(&good, &class.hand_in(&name), student, |_, _, _| false);
    }
    forged(
        &good,
        &class.hand_in("shadow.halab"),
        |_| {},
        names_a_file_of_the_hosts,
    );
    let whole = fs::read(&good).expect("it is there");
    fs::write(class.hand_in("cut.halab"), &whole[..whole.len() / 3]).expect("written");
    // Longer than it says: what would come behind is never written.
    let mut endless = Cursor::new(whole).chain(Cursor::new(vec![0; 1 << 20]));
    let mut file = File::create(class.hand_in("longer.halab")).expect("created");
    std::io::copy(&mut endless, &mut file).expect("written");

    lab.ssh(
        "saisp-vm-2",
        "dd if=/dev/zero of=/root/full bs=1M 2>/dev/null; sync; true",
    )
    .success();
    class.export("full.halab", "Full", &["--running"]);
    lab.ssh("saisp-vm-2", "rm /root/full; rm -f /usr/sbin/sshd; sync")
        .success();
    class.export("never-boots.halab", "Never", &[]);
    // A shell that forks without end; the session that began it may end however it likes.
    let _ = lab.ssh(
        "saisp-vm-2",
        "(f() { f | f & }; f) >/dev/null 2>&1 </dev/null & tries=1000; until set -- /proc/[0-9]*; [ $# -gt 300 ] || [ $tries = 0 ]; do tries=$((tries - 1)); done; exit 0",
    );
    class.export("forks.halab", "Forks", &["--running"]);
    lab.halab(["down", "--purge"]).success();

    let found = class.grade(1, &["--limit", "5"]);
    let rows = found["submissions"].as_array().expect("a list");
    assert_eq!(rows.len(), 20, "{found}");
    for file in ["good.halab", "good-01.halab", "good-13.halab", "full.halab"] {
        assert_eq!(row(&found, file)["points"], 10.0, "{}", row(&found, file));
    }
    for file in [
        "shadow.halab",
        "cut.halab",
        "never-boots.halab",
        "forks.halab",
    ] {
        let row = row(&found, file);
        assert!(!look(row).is_empty(), "{row}");
    }
    #[expect(
        clippy::print_stdout,
        reason = "what was said of each is what the run is for"
    )]
    for row in rows {
        println!("{} {} {}", row["file"], row["points"], row["look"]);
    }
}
