//! Builds the machines' image into the cache, once for each recipe.
//!
//! Runs the commands that [`super::image_plan`] plans. Safe against everything that happens to
//! long work: a second builder waits for the first, a killed one leaves a folder that the next
//! clears, downloads survive a failure, and an image appears under its name only when it is whole.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::image_plan::{self, BuildPaths, Builder, InstallLog, InstallStep};
use super::probe;
use super::progress::Progress;
use super::recipe::{Recipe, setup_script};

/// How often a waiting builder looks whether the other is done: unnoticed beside a minute's build.
const LOCK_POLL_PERIOD: Duration = Duration::from_millis(200);

/// How much of a failed build's log is shown with the error.
const TAIL_LINES: usize = 15;

/// What all steps belong to.
const SUBJECT: &str = "building the image";

/// Tries to clear a folder in which killed processes may still be dying.
const DISCARD_TRIES: usize = 3;

/// An image in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub dir: PathBuf,
    /// What the machines' overlays rest on; never written to.
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The recipe's hash.
    pub hash: String,
}

impl Image {
    /// Names an image's files, whether they are there or not.
    pub fn in_cache(cache_dir: &Path, hash: &str) -> Self {
        let dir = cache_dir.join(format!("image-{hash}"));
        Self {
            disk: dir.join("base.qcow2"),
            kernel: dir.join("vmlinuz"),
            initrd: dir.join("initrd"),
            hash: hash.to_owned(),
            dir,
        }
    }

    pub fn is_built(&self) -> bool {
        [&self.disk, &self.kernel, &self.initrd]
            .iter()
            .all(|file| file.is_file())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("failed to write {} while building the image", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to lock {} against other builders of the image", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("failed to start {program} to build the image")]
    Start { program: String, source: io::Error },
    #[error("failed to read what {program} says while it builds the image")]
    Read { program: String, source: io::Error },
    #[error(
        "failed to build the image while {step}: {program} ended with {status}{}\n{tail}\nthe whole log is {}",
        advice.map(|advice| format!("\n{advice}; it said:")).unwrap_or_default(),
        log.display()
    )]
    Step {
        step: String,
        program: String,
        status: ExitStatus,
        tail: String,
        log: PathBuf,
        advice: Option<&'static str>,
    },
}

/// Returns the recipe's image, building it first where it is not in the cache.
///
/// Dropping the future ends the build and its processes; what is left is cleared by the next.
pub async fn ensure_image(
    cache_dir: &Path,
    recipe: &Recipe,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let image = Image::in_cache(cache_dir, &recipe.hash());
    if image.is_built() {
        return Ok(image);
    }
    create_dir(cache_dir)?;
    let _lock = BuildLock::wait(cache_dir, &image.hash, progress).await?;
    if !image.is_built() {
        let build = Build::new(cache_dir, &image, progress);
        let built = build.run(recipe, &image).await;
        progress.done();
        built?;
    }
    Ok(image)
}

/// Held by whoever builds an image, and by nobody once that process is gone.
#[derive(Debug)]
struct BuildLock {
    _file: File,
}

impl BuildLock {
    async fn wait(
        cache_dir: &Path,
        hash: &str,
        progress: &dyn Progress,
    ) -> Result<Self, ImageError> {
        let path = lock_path(cache_dir, hash);
        loop {
            if let Some(lock) = Self::take(&path)? {
                return Ok(lock);
            }
            // No deadline: the other one is alive, or its lock would be gone, and says itself what it does.
            progress.step(&format!(
                "waiting for the image that {} is building",
                holder(&path)
            ));
            tokio::time::sleep(LOCK_POLL_PERIOD).await;
        }
    }

    fn take(path: &Path) -> Result<Option<Self>, ImageError> {
        let failed = |source| ImageError::Lock {
            path: path.to_owned(),
            source,
        };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // Who holds it is a courtesy to those who wait; the lock itself is the kernel's.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| write!(file, "process {}", std::process::id()));
                Ok(Some(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

fn lock_path(cache_dir: &Path, hash: &str) -> PathBuf {
    cache_dir.join(format!("image-{hash}.lock"))
}

fn holder(lock: &Path) -> String {
    let mut name = String::new();
    let read = File::open(lock).and_then(|file| file.take(64).read_to_string(&mut name));
    if read.is_err() || name.is_empty() {
        return "another halab".to_owned();
    }
    name
}

/// One build, from an empty folder to the image under its name.
struct Build<'build> {
    cache_dir: &'build Path,
    paths: BuildPaths,
    log: PathBuf,
    builder: Builder,
    progress: &'build dyn Progress,
}

impl<'build> Build<'build> {
    fn new(cache_dir: &'build Path, image: &Image, progress: &'build dyn Progress) -> Self {
        let name = |what: &str| cache_dir.join(format!("image-{}.{what}", image.hash));
        Self {
            cache_dir,
            paths: BuildPaths {
                work: name("building"),
                packages: name("packages"),
            },
            log: name("log"),
            builder: if probe::is_root() {
                Builder::Root
            } else {
                Builder::User
            },
            progress,
        }
    }

    async fn run(&self, recipe: &Recipe, image: &Image) -> Result<(), ImageError> {
        self.say("clearing what an earlier build left");
        self.discard_abandoned().await;
        let made = self.make(recipe).await;
        if made.is_err() {
            self.discard(&self.paths.work).await;
            return made;
        }
        // A half-built image from before the rename was the last step would be in the way.
        let _ = fs::remove_dir_all(&image.dir);
        fs::rename(&self.paths.work, &image.dir)
            .map_err(|source| write_failed(&image.dir, source))?;
        let _ = fs::remove_dir_all(&self.paths.packages);
        Ok(())
    }

    async fn make(&self, recipe: &Recipe) -> Result<(), ImageError> {
        let paths = &self.paths;
        self.lay_out(recipe)?;
        let mirror = recipe.mirror.clone().unwrap_or_else(probe::debian_mirror);
        let mut log = InstallLog::default();
        self.run_step(
            "installing packages",
            image_plan::confined(self.builder, image_plan::install(recipe, &mirror, paths)),
            |line| log.line(line),
        )
        .await?;
        let silent = |_: &str| None;
        self.run_step(
            "making the file system",
            image_plan::confined(self.builder, image_plan::pack(recipe, paths)),
            silent,
        )
        .await?;
        self.run_step(
            "making the disk",
            image_plan::confined(self.builder, image_plan::convert(paths)),
            silent,
        )
        .await?;
        self.keep_only_the_image()
    }

    /// Writes what the installation reads: the recipe's files and the script that puts them in place.
    fn lay_out(&self, recipe: &Recipe) -> Result<(), ImageError> {
        let paths = &self.paths;
        create_dir(&paths.files())?;
        create_dir(&paths.packages.join("partial"))?;
        for (position, file) in recipe.files.iter().enumerate() {
            write(&paths.files().join(position.to_string()), &file.content)?;
        }
        write(&paths.setup(), &setup_script(recipe))?;
        write(&self.log, "")
    }

    /// Leaves three files, and leaves them on the disk before anybody can see them.
    fn keep_only_the_image(&self) -> Result<(), ImageError> {
        let paths = &self.paths;
        for file in [paths.raw_disk(), paths.setup()] {
            fs::remove_file(&file).map_err(|source| write_failed(&file, source))?;
        }
        fs::remove_dir_all(paths.files()).map_err(|source| write_failed(&paths.files(), source))?;
        for file in [
            paths.disk(),
            paths.kernel(),
            paths.initrd(),
            paths.work.clone(),
        ] {
            File::open(&file)
                .and_then(|opened| opened.sync_all())
                .map_err(|source| write_failed(&file, source))?;
        }
        Ok(())
    }

    fn say(&self, step: &str) {
        self.progress.step(&format!("{SUBJECT}: {step}"));
    }

    /// Runs a command to its end, keeping its output in the log and its steps on the screen.
    async fn run_step(
        &self,
        name: &str,
        words: Vec<String>,
        mut step_of: impl FnMut(&str) -> Option<InstallStep>,
    ) -> Result<(), ImageError> {
        self.say(name);
        let program = program_name(&words);
        let mut log = File::options()
            .append(true)
            .open(&self.log)
            .map_err(|source| write_failed(&self.log, source))?;
        let mut child = command(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ImageError::Start {
                program: program.clone(),
                source,
            })?;
        let output = child.stdout.take().expect("the output was asked for above");
        let mut lines = BufReader::new(output).split(b'\n');
        let mut tail = VecDeque::with_capacity(TAIL_LINES);
        let mut step = name.to_owned();
        let read_failed = |source| ImageError::Read {
            program: program.clone(),
            source,
        };
        while let Some(line) = lines.next_segment().await.map_err(read_failed)? {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            writeln!(log, "{line}").map_err(|source| write_failed(&self.log, source))?;
            if let Some(begun) = step_of(line) {
                begun.show(self.progress, SUBJECT);
                begun.text().clone_into(&mut step);
            }
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        }
        let status = child.wait().await.map_err(read_failed)?;
        if status.success() {
            return Ok(());
        }
        let tail = Vec::from(tail).join("\n");
        Err(ImageError::Step {
            step,
            status,
            log: self.log.clone(),
            advice: image_plan::advice(&tail),
            tail,
            program,
        })
    }

    /// Removes the folders of builds that nobody is busy with any more, this image's among them.
    async fn discard_abandoned(&self) {
        self.discard(&self.paths.work).await;
        for hash in abandoned(self.cache_dir) {
            let lock = BuildLock::take(&lock_path(self.cache_dir, &hash));
            if matches!(lock, Ok(Some(_))) {
                self.discard(&self.cache_dir.join(format!("image-{hash}.building")))
                    .await;
                let _ = fs::remove_dir_all(self.cache_dir.join(format!("image-{hash}.packages")));
            }
        }
    }

    /// Failing to remove is no failure of the build: what matters fails again where it is written.
    async fn discard(&self, work: &Path) {
        for _ in 0..DISCARD_TRIES {
            if !work.exists() {
                return;
            }
            let words = image_plan::confined(self.builder, image_plan::discard(work));
            let _ = command(&words)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .await;
        }
    }
}

/// Names the hashes of unfinished builds in the cache.
fn abandoned(cache_dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache_dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| {
            let hash = name.strip_prefix("image-")?.strip_suffix(".building")?;
            Some(hash.to_owned())
        })
        .collect()
}

fn command(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        // An ordinary user's search path often lacks the folders of mke2fs and chroot.
        .env("PATH", probe::search_path())
        .env("LC_ALL", "C.UTF-8")
        .kill_on_drop(true);
    command
}

/// The command that matters: the one behind those that confine it.
fn program_name(words: &[String]) -> String {
    words
        .iter()
        .skip_while(|word| *word != "--")
        .nth(1)
        .or_else(|| words.first())
        .cloned()
        .unwrap_or_default()
}

fn create_dir(path: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(path).map_err(|source| write_failed(path, source))
}

fn write(path: &Path, content: &str) -> Result<(), ImageError> {
    fs::write(path, content).map_err(|source| write_failed(path, source))
}

fn write_failed(path: &Path, source: io::Error) -> ImageError {
    ImageError::Write {
        path: path.to_owned(),
        source,
    }
}
