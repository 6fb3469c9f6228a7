//! Speaks QMP with one QEMU: commands of the qapi crate, each with a deadline.
//!
//! The crate's own clients end when an event arrives that their schema does not know, and
//! every QEMU brings new ones; so the lines are read here, events are passed over, and the
//! crate gives commands and answers their types.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qapi::qmp::{self, QmpCommand};
use serde_json::Value;

use super::process::connect_socket;

/// Longest answer read; the largest asked for (block devices) stays below 100 KiB.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// QEMU answers at once, unless the host is out of breath.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at a migration, which takes a tenth of a second.
const MIGRATION_POLL: Duration = Duration::from_millis(4);
/// No limit that a disk could reach; QEMU's own would slow a save down.
const MIGRATION_BYTES_PER_SECOND: u64 = 1 << 40;

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("failed to connect to QEMU's monitor")]
    Connect(#[source] io::Error),
    #[error("QEMU's monitor did not greet as one: `{line}`")]
    Greeting { line: String },
    #[error("failed to send `{command}` to QEMU")]
    Send {
        command: &'static str,
        source: io::Error,
    },
    #[error("no answer from QEMU to `{command}`")]
    Receive {
        command: &'static str,
        source: io::Error,
    },
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        command: &'static str,
        reason: String,
    },
    #[error("QEMU's answer to `{command}` was not understood")]
    Answer {
        command: &'static str,
        source: serde_json::Error,
    },
    #[error("QEMU could not move the machine's memory: {reason}")]
    Migration { reason: String },
    #[error("the machine's memory did not move within {seconds} s")]
    MigrationDeadline { seconds: u64 },
}

/// Where [`Qmp::flatten`] ends: a node, and its file's name as the disk's header will say it.
#[derive(Clone, Debug)]
pub struct FlattenBase {
    pub node: String,
    pub file: String,
}

/// A connection to one QEMU's monitor. QEMU serves one at a time on each of its sockets.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, reads the greeting and leaves the negotiation. Waits up to `deadline` for a
    /// QEMU that is still opening its socket.
    pub fn connect(socket: &Path, deadline: Duration) -> Result<Self, QmpError> {
        let stream = connect_socket(socket, deadline).map_err(QmpError::Connect)?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        let greeting = qmp
            .line(Instant::now() + deadline)
            .map_err(QmpError::Connect)?;
        if serde_json::from_str::<qmp::QapiCapabilities>(&greeting).is_err() {
            return Err(QmpError::Greeting { line: greeting });
        }
        qmp.execute(&qmp::qmp_capabilities { enable: None })?;
        Ok(qmp)
    }

    /// Runs one command.
    pub fn execute<C: QmpCommand>(&mut self, command: &C) -> Result<C::Ok, QmpError> {
        let deadline = Instant::now() + COMMAND_DEADLINE;
        let name = C::NAME;
        let mut text =
            serde_json::to_vec(&qapi::Execute::<_, u32>::new(command, None)).map_err(|source| {
                QmpError::Answer {
                    command: name,
                    source,
                }
            })?;
        text.push(b'\n');
        self.reader
            .get_mut()
            .write_all(&text)
            .map_err(|source| QmpError::Send {
                command: name,
                source,
            })?;
        loop {
            let line = self.line(deadline).map_err(|source| QmpError::Receive {
                command: name,
                source,
            })?;
            let answer = |source| QmpError::Answer {
                command: name,
                source,
            };
            let mut message: Value = serde_json::from_str(&line).map_err(answer)?;
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given");
                return Err(QmpError::Refused {
                    command: name,
                    reason: reason.to_owned(),
                });
            }
            if let Some(returned) = message.get_mut("return") {
                return serde_json::from_value(returned.take()).map_err(answer);
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.reader
            .get_ref()
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut line = String::new();
        let count = (&mut self.reader)
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU closed its monitor",
            ));
        }
        if !line.ends_with('\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer without end",
            ));
        }
        Ok(line)
    }

    pub fn is_running(&mut self) -> Result<bool, QmpError> {
        Ok(self.execute(&qmp::query_status {})?.running)
    }

    pub fn pause(&mut self) -> Result<(), QmpError> {
        self.end_migration()?;
        if self.execute(&qmp::query_status {})?.status == qmp::RunState::postmigrate {
            // A machine whose memory was just saved gave its disks away and would not be saved again.
            self.execute(&qmp::cont {})?;
        }
        self.execute(&qmp::stop {}).map(drop)
    }

    /// Lets the machine go on. A save that is still under way, because the command that asked
    /// for it was killed, is given up first: at its end it would stop the machine again.
    pub fn resume(&mut self) -> Result<(), QmpError> {
        self.end_migration()?;
        self.execute(&qmp::cont {}).map(drop)
    }

    /// Presses Ctrl-Alt-Del, and has QEMU end where the machine would start over. A power button
    /// needs somebody in the guest who listens to it; this reaches its init itself.
    pub fn shut_down(&mut self) -> Result<(), QmpError> {
        self.execute(&qmp::set_action {
            reboot: Some(qmp::RebootAction::shutdown),
            shutdown: None,
            panic: None,
            watchdog: None,
        })?;
        let keys = [
            qmp::QKeyCode::ctrl,
            qmp::QKeyCode::alt,
            qmp::QKeyCode::delete,
        ];
        let keys = keys.map(|data| qmp::KeyValue::qcode(qmp::QKeyCodeWrapper { data }));
        self.execute(&qmp::send_key {
            keys: keys.into(),
            hold_time: None,
        })
        .map(drop)
    }

    /// Ends a save that a command which was killed began.
    fn end_migration(&mut self) -> Result<(), QmpError> {
        let status = self.execute(&qmp::query_migrate {})?.status;
        if !status.is_some_and(is_under_way) {
            return Ok(());
        }
        self.execute(&qmp::migrate_cancel {})?;
        let end = Instant::now() + COMMAND_DEADLINE;
        while self
            .execute(&qmp::query_migrate {})?
            .status
            .is_some_and(is_under_way)
        {
            if Instant::now() >= end {
                return Err(QmpError::MigrationDeadline {
                    seconds: COMMAND_DEADLINE.as_secs(),
                });
            }
            thread::sleep(MIGRATION_POLL);
        }
        Ok(())
    }

    pub fn set_link(&mut self, nic: &str, up: bool) -> Result<(), QmpError> {
        let name = nic.to_owned();
        self.execute(&qmp::set_link { name, up }).map(drop)
    }

    /// Returns the block node a disk writes to now.
    pub fn top_node(&mut self, disk: &str) -> Result<Option<String>, QmpError> {
        let devices = self.execute(&qmp::query_block {})?;
        Ok(devices
            .into_iter()
            .find(|device| {
                device
                    .qdev
                    .as_deref()
                    .is_some_and(|qdev| qdev == disk || qdev.rsplit('/').nth(0) == Some(disk))
            })
            .and_then(|device| device.inserted)
            .and_then(|inserted| inserted.node_name))
    }

    /// Freezes what a disk writes to and puts a new layer on it. `known` are the nodes of the
    /// layers that should lie below, the highest first: those above what the disk really writes
    /// to were brought by a command that was killed, and would be kept locked for nobody.
    pub fn add_layer(
        &mut self,
        disk: &str,
        layer: Value,
        known: &[String],
    ) -> Result<(), QmpError> {
        const COMMAND: &str = "blockdev-add";
        let node = self.top_node(disk)?.ok_or_else(|| QmpError::Refused {
            command: "query-block",
            reason: format!("it has no disk `{disk}`"),
        })?;
        for unused in known.iter().take_while(|each| **each != node) {
            // Most often it was never added.
            let _ = self.execute(&qmp::blockdev_del {
                node_name: unused.clone(),
            });
        }
        let overlay = layer["node-name"].as_str().unwrap_or_default().to_owned();
        let options = top_options(layer).map_err(|source| QmpError::Answer {
            command: COMMAND,
            source,
        })?;
        self.execute(&qmp::blockdev_add(options))?;
        self.execute(&qmp::blockdev_snapshot(qmp::BlockdevSnapshot {
            node,
            overlay,
        }))?;
        Ok(())
    }

    /// Writes the memory of a paused machine into a file.
    pub fn save_memory(&mut self, file: &str, deadline: Duration) -> Result<(), QmpError> {
        let parameters = serde_json::json!({ "max-bandwidth": MIGRATION_BYTES_PER_SECOND });
        let parameters: qmp::MigrateSetParameters =
            serde_json::from_value(parameters).map_err(|source| QmpError::Answer {
                command: "migrate-set-parameters",
                source,
            })?;
        self.execute(&qmp::migrate_set_parameters(parameters))?;
        self.execute(&qmp::migrate {
            uri: Some(format!("file:{file}")),
            channels: None,
            detach: None,
            resume: None,
        })?;
        self.await_migration(deadline)
    }

    /// Reads the memory of a machine that was started to load it.
    pub fn load_memory(&mut self, file: &str, deadline: Duration) -> Result<(), QmpError> {
        self.execute(&qmp::migrate_incoming {
            uri: Some(format!("file:{file}")),
            channels: None,
            exit_on_error: None,
        })?;
        self.await_migration(deadline)
    }

    /// Moves what lies between a disk's top and `base` into the top, while the machine runs.
    pub fn flatten(
        &mut self,
        top: &str,
        base: &FlattenBase,
        deadline: Duration,
    ) -> Result<(), QmpError> {
        const COMMAND: &str = "block-stream";
        let job = format!("flatten-{top}");
        self.execute(&qmp::block_stream {
            auto_dismiss: Some(false),
            auto_finalize: None,
            backing_file: Some(base.file.clone()),
            backing_mask_protocol: None,
            base: None,
            base_node: Some(base.node.clone()),
            bottom: None,
            filter_node_name: None,
            job_id: Some(job.clone()),
            on_error: None,
            speed: None,
            device: top.to_owned(),
        })?;
        let end = Instant::now() + deadline;
        loop {
            let jobs = self.execute(&qmp::query_jobs {})?;
            let own = jobs.into_iter().find(|each| each.id == job);
            match own {
                Some(own) if own.status == qmp::JobStatus::concluded => {
                    self.execute(&qmp::job_dismiss { id: job })?;
                    return match own.error {
                        None => Ok(()),
                        Some(reason) => Err(QmpError::Refused {
                            command: COMMAND,
                            reason,
                        }),
                    };
                }
                _ if Instant::now() >= end => {
                    return Err(QmpError::Refused {
                        command: COMMAND,
                        reason: format!("not done within {} s", deadline.as_secs()),
                    });
                }
                _ => thread::sleep(MIGRATION_POLL),
            }
        }
    }

    fn await_migration(&mut self, deadline: Duration) -> Result<(), QmpError> {
        let end = Instant::now() + deadline;
        loop {
            let info = self.execute(&qmp::query_migrate {})?;
            match info.status {
                Some(qmp::MigrationStatus::completed) => return Ok(()),
                Some(qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled) => {
                    return Err(QmpError::Migration {
                        reason: info.error_desc.unwrap_or_else(|| "no reason given".into()),
                    });
                }
                _ if Instant::now() >= end => {
                    return Err(QmpError::MigrationDeadline {
                        seconds: deadline.as_secs(),
                    });
                }
                _ => thread::sleep(MIGRATION_POLL),
            }
        }
    }
}

fn is_under_way(status: qmp::MigrationStatus) -> bool {
    use qmp::MigrationStatus::{cancelled, completed, failed, none};
    !matches!(status, none | cancelled | completed | failed)
}

/// Types a new top's description. Read from JSON, "no backing file" would become "not said",
/// and QEMU would open the one that the file names, which is in use.
fn top_options(layer: Value) -> Result<qmp::BlockdevOptions, serde_json::Error> {
    let mut options: qmp::BlockdevOptions = serde_json::from_value(layer)?;
    if let qmp::BlockdevOptions::qcow2 { qcow2, .. } = &mut options {
        qcow2.base.backing = Some(qmp::BlockdevRefOrNull::null(()));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::layers::Layers;

    #[test]
    fn a_new_top_is_opened_without_what_lies_below() {
        let layers = Layers::new("base".into()).with_top("one-sda.1.qcow2".into());
        let options = top_options(layers.blockdev_top("disks")).expect("typed");
        let said = serde_json::to_value(qmp::blockdev_add(options)).expect("JSON");
        assert_eq!(said.get("backing"), Some(&Value::Null), "{said}");
        assert_eq!(said["node-name"], "n-one-sda.1");
        assert_eq!(said["file"]["filename"], "disks/one-sda.1.qcow2");
    }
}
