//! The modules `vm` and `fault`: playbooks that act on machines and cables themselves.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::lab::{Lab, LabError};
use super::lifecycle::MachineState;
use super::progress::Quiet;
use super::state::LabLock;
use crate::base::wire::{TaskReply, TaskRequest};
use crate::remote::transport::{Remote, RemoteError, RemoteFuture};

/// The lab as a host that runs modules. Holds the lab's lock: nobody else changes the lab
/// while a playbook runs.
#[derive(Clone, Debug)]
pub struct LabRemote {
    lab: Arc<Lab>,
    lock: Arc<LabLock>,
}

/// What a module asks for, read from its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Machine {
        name: String,
        wanted: Wanted,
    },
    Link {
        machine: String,
        nic: String,
        up: bool,
    },
    Loss {
        machine: String,
        nic: String,
        percent: u8,
    },
    Load {
        snapshot: String,
    },
    Save {
        snapshot: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Killed,
    Restarted,
    Stopped,
}

impl LabRemote {
    pub fn new(lab: Arc<Lab>, lock: Arc<LabLock>) -> Self {
        Self { lab, lock }
    }

    /// Does what is wished and says whether it changed anything; with `check` only says it.
    fn fulfil(&self, wish: &Wish, check: bool) -> Result<bool, LabError> {
        match wish {
            Wish::Load { .. } | Wish::Save { .. } => self.whole(wish, check),
            Wish::Machine { name, wanted } => self.machine(name, *wanted, check),
            Wish::Link { machine, nic, up } => {
                if check {
                    let down = self.lab.faults()?.links_down;
                    return Ok(down.contains(&(machine.clone(), nic.clone())) == *up);
                }
                self.lab.set_link(&self.lock, machine, nic, *up)
            }
            Wish::Loss {
                machine,
                nic,
                percent,
            } => {
                if check {
                    let place = (machine.clone(), nic.clone());
                    let losses = self.lab.faults()?.loss;
                    return Ok(losses.get(&place).copied().unwrap_or(0) != *percent);
                }
                self.lab.set_loss(&self.lock, machine, nic, *percent)
            }
        }
    }

    /// Loads or keeps a state of the whole lab.
    fn whole(&self, wish: &Wish, check: bool) -> Result<bool, LabError> {
        match wish {
            _ if check => {}
            Wish::Load { snapshot } => self.lab.load(&self.lock, snapshot, &Quiet)?,
            Wish::Save { snapshot } => self.lab.save(&self.lock, snapshot, &Quiet)?,
            _ => unreachable!("only wishes for the whole lab come here"),
        }
        Ok(true)
    }

    fn machine(&self, name: &str, wanted: Wanted, check: bool) -> Result<bool, LabError> {
        let state = self.state(name)?;
        let (lab, lock) = (&self.lab, &self.lock);
        let changes = match wanted {
            Wanted::Running => state != MachineState::Running,
            Wanted::Paused => state != MachineState::Paused,
            Wanted::Killed => matches!(state, MachineState::Running | MachineState::Paused),
            Wanted::Stopped => matches!(state, MachineState::Running | MachineState::Paused),
            Wanted::Restarted => true,
        };
        if check || !changes {
            return Ok(changes);
        }
        match (wanted, state) {
            (Wanted::Running, MachineState::Paused) => lab.set_paused(lock, name, false),
            (Wanted::Running, _) => lab.power_on(lock, name, &Quiet),
            (Wanted::Paused, _) => lab.set_paused(lock, name, true),
            (Wanted::Killed, _) => lab.kill(lock, name),
            (Wanted::Stopped, _) => lab.shut_down(lock, name),
            (Wanted::Restarted, _) => {
                lab.kill(lock, name)?;
                lab.power_on(lock, name, &Quiet)
            }
        }
    }

    fn state(&self, name: &str) -> Result<MachineState, LabError> {
        self.lab.machine(name)?;
        let record = self.lab.folders.record()?;
        let states = self.lab.states(self.lab.holder(), &record);
        let found = states.into_iter().find(|(each, _)| each == name);
        Ok(found.map_or(MachineState::Off, |(_, state)| state))
    }
}

impl Remote for LabRemote {
    fn run(&self, request: TaskRequest, _body: Vec<u8>) -> RemoteFuture<'_> {
        Box::pin(async move {
            let id = request.id;
            let remote = self.clone();
            let done = tokio::task::spawn_blocking(move || {
                let wish = Wish::of(&request.module, &request.args)?;
                remote
                    .fulfil(&wish, request.check)
                    .map_err(|error| with_causes(&error))
            })
            .await;
            let result = match done {
                Ok(Ok(changed)) => json!({ "changed": changed }),
                Ok(Err(message)) => json!({ "changed": false, "failed": true, "msg": message }),
                Err(panicked) => {
                    return Err(RemoteError::Lost {
                        host: "lab".into(),
                        reason: panicked.to_string(),
                    });
                }
            };
            let Value::Object(result) = result else {
                unreachable!("both are objects")
            };
            Ok(TaskReply { id, result })
        })
    }

    fn reset(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Nothing is kept between two tasks.
        Box::pin(async {})
    }
}

impl Wish {
    fn of(module: &str, args: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| {
            args.get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("`{name}` is missing"))
        };
        if module == "vm" {
            let wanted = match text("state")?.as_str() {
                "running" => Wanted::Running,
                "paused" => Wanted::Paused,
                "killed" => Wanted::Killed,
                "restarted" => Wanted::Restarted,
                "stopped" => Wanted::Stopped,
                other => return Err(format!("no machine can be `{other}`")),
            };
            return Ok(Self::Machine {
                name: text("name")?,
                wanted,
            });
        }
        if module == "snapshot" {
            let snapshot = text("name")?;
            return Ok(match args.get("state").and_then(Value::as_str) {
                Some("saved") => Self::Save { snapshot },
                _ => Self::Load { snapshot },
            });
        }
        let machine = text("vm")?;
        let wanted = |wanted| {
            Ok(Self::Machine {
                name: machine.clone(),
                wanted,
            })
        };
        match text("kind")?.as_str() {
            "pause" => wanted(Wanted::Paused),
            "resume" => wanted(Wanted::Running),
            "kill" => wanted(Wanted::Killed),
            "link" => Ok(Self::Link {
                machine,
                nic: text("nic")?,
                up: text("state")? == "up",
            }),
            "loss" => Ok(Self::Loss {
                machine,
                nic: text("nic")?,
                percent: percent(args.get("percent"))?,
            }),
            other => Err(format!("there is no fault `{other}`")),
        }
    }
}

/// `tc` would take fractions; whole per cents are what a lab needs and what `status` shows.
fn percent(value: Option<&Value>) -> Result<u8, String> {
    let number = value
        .and_then(Value::as_f64)
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or("`percent` is a number from 0 to 100")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 100"
    )]
    Ok(number.round() as u8)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(each) = cause {
        text = format!("{text}: {each}");
        cause = each.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(module: &str, args: &Value) -> Result<Wish, String> {
        Wish::of(module, args.as_object().expect("an object"))
    }

    #[test]
    fn modules_say_what_they_wish() {
        assert_eq!(
            wish("vm", &json!({"name": "a", "state": "paused"})),
            Ok(Wish::Machine {
                name: "a".into(),
                wanted: Wanted::Paused
            })
        );
        assert_eq!(
            wish(
                "fault",
                &json!({"kind": "link", "vm": "a", "nic": "eth1", "state": "down"})
            ),
            Ok(Wish::Link {
                machine: "a".into(),
                nic: "eth1".into(),
                up: false
            })
        );
        assert_eq!(
            wish(
                "fault",
                &json!({"kind": "loss", "vm": "a", "nic": "eth1", "percent": 29.6})
            ),
            Ok(Wish::Loss {
                machine: "a".into(),
                nic: "eth1".into(),
                percent: 30
            })
        );
        assert_eq!(
            wish(
                "fault",
                &json!({"kind": "loss", "vm": "a", "nic": "e", "percent": 101})
            ),
            Err("`percent` is a number from 0 to 100".into())
        );
        assert_eq!(
            wish("vm", &json!({"state": "paused"})),
            Err("`name` is missing".into())
        );
    }
}
