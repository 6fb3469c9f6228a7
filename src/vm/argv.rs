//! A machine's start as QEMU's arguments.
//!
//! QEMU runs in the lab's folder, so every path here is relative to it and short enough for a
//! socket whatever the folder's own path is. Secrets are in files ([`credential_file`]), for
//! arguments are visible to everybody on the host.

use super::layers::Layers;
use super::spec::{Accelerator, Machine};

/// Its version is pinned by the snapshots' key, which holds QEMU's.
pub const MACHINE_TYPE: &str = "q35";

/// Bytes of translated code a guest may keep. Enough for a whole boot; the default (1 GiB)
/// would let three guests take more memory than they have themselves.
const TRANSLATION_CACHE_MIB: u32 = 256;

/// The image has no loader: its kernel is told what a loader would tell it. Disks are looked for
/// before the drivers' loading ends, for the initrd mounts the root right after it. A machine that
/// panics starts over, as servers do. On a busy host an emulated guest takes minutes for what
/// systemd gives a device or a service 90 s: sshd was seen to fail for that.
const KERNEL_COMMAND_LINE: &str = "root=/dev/sda rootfstype=ext4 rw net.ifnames=0 console=ttyS0 quiet scsi_mod.scan=sync panic=5 systemd.default_device_timeout_sec=600 systemd.default_timeout_start_sec=600";

/// First slots of the bus for the disk controller and the cards. Fixed, for a saved state fits only the
/// same devices in the same slots.
const SCSI_SLOT: usize = 2;
const FIRST_NIC_SLOT: usize = 8;

/// Sockets and logs of one machine, relative to the lab's folder.
pub fn machine_folder(machine: &str) -> String {
    format!("machines/{machine}")
}

/// Where the lab's layers are.
pub const DISKS_FOLDER: &str = "disks";

/// The sockets in a machine's folder.
pub const QMP_SOCKET: &str = "qmp.sock";
pub const STATUS_SOCKET: &str = "status.sock";
pub const CONSOLE_SOCKET: &str = "console.sock";
pub const CONTROL_SOCKET: &str = "control.sock";
pub const SERIAL_LOG: &str = "serial.log";
pub const QEMU_LOG: &str = "qemu.log";
/// QEMU removes it when it ends in order, as it does when the guest has powered itself off, and
/// leaves it when it is killed or crashes.
pub const PID_FILE: &str = "qemu.pid";

/// Names the file that holds one credential.
pub fn credential_file(index: usize) -> String {
    format!("credential-{index}")
}

/// One credential as the string systemd looks for.
pub fn credential_text(name: &str, content: &[u8]) -> String {
    format!(
        "io.systemd.credential.binary:{name}={}",
        super::guest::base64(content)
    )
}

pub fn cpu_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max",
    }
}

/// How a machine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// At the kernel's first instruction.
    Boot,
    /// In a saved state, which is told over QMP.
    Load,
}

/// Everything a machine's arguments follow from.
#[derive(Clone, Debug)]
pub struct Start<'lab> {
    pub machine: &'lab Machine,
    pub accelerator: Accelerator,
    pub kernel: &'lab str,
    pub initrd: &'lab str,
    /// One for each of the machine's disks, in their order.
    pub disks: &'lab [Layers],
    pub credential_count: usize,
    pub beginning: Beginning,
}

/// Returns the arguments. The machine starts paused.
pub fn arguments(start: &Start<'_>) -> Vec<String> {
    let machine = start.machine;
    let folder = machine_folder(&machine.name);
    let mut words = Words::default();
    words.option("-name", &[("guest", &machine.name)]);
    words.flags(&["-S", "-nodefaults", "-no-user-config"]);
    words.pair("-display", "none");
    words.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    words.pair("-machine", &format!("{MACHINE_TYPE},usb=off,vmport=off"));
    words.pair("-accel", &accelerator(start.accelerator));
    words.pair("-cpu", cpu_model(start.accelerator));
    words.pair("-smp", "1");
    words.pair("-m", &format!("{}M", machine.memory.mib()));
    words.pair("-rtc", "base=utc");
    words.pair("-kernel", start.kernel);
    words.pair("-initrd", start.initrd);
    words.pair("-append", KERNEL_COMMAND_LINE);
    disks(&mut words, start.disks, machine);
    cards(&mut words, machine);
    words.pair("-device", "vmgenid,guid=auto");
    sockets(&mut words, &folder);
    words.pair("-pidfile", &format!("{folder}/{PID_FILE}"));
    for index in 0..start.credential_count {
        let path = format!("{folder}/{}", credential_file(index));
        words.option("-smbios", &[("type", "11"), ("path", &path)]);
    }
    if start.beginning == Beginning::Load {
        words.pair("-incoming", "defer");
    }
    words.0
}

fn accelerator(accelerator: Accelerator) -> String {
    match accelerator {
        Accelerator::Kvm => "kvm".into(),
        Accelerator::Tcg => format!("tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"),
    }
}

fn disks(words: &mut Words, disks: &[Layers], machine: &Machine) {
    words.pair(
        "-device",
        &format!("virtio-scsi-pci,id=scsi,addr={SCSI_SLOT}"),
    );
    for (index, (layers, disk)) in disks.iter().zip(&machine.disks).enumerate() {
        words.pair("-blockdev", &layers.blockdev(DISKS_FOLDER).to_string());
        words.option(
            "-device",
            &[
                ("driver", "scsi-hd"),
                ("bus", "scsi.0"),
                ("scsi-id", &index.to_string()),
                ("id", &disk.name),
                ("serial", &disk.name),
                ("drive", &layers.top_node()),
            ],
        );
    }
}

fn cards(words: &mut Words, machine: &Machine) {
    for (index, nic) in machine.nics.iter().enumerate() {
        words.option(
            "-netdev",
            &[
                ("type", "tap"),
                ("id", &format!("cable-{}", nic.name)),
                ("ifname", &nic.tap),
                ("script", "no"),
                ("downscript", "no"),
            ],
        );
        words.option(
            "-device",
            &[
                ("driver", "virtio-net-pci"),
                ("id", &nic.name),
                ("netdev", &format!("cable-{}", nic.name)),
                ("mac", &nic.mac.to_string()),
                ("addr", &(FIRST_NIC_SLOT + index).to_string()),
            ],
        );
    }
}

/// Two QMP sockets, for one takes one client at a time: the owner's, and one for whoever asks
/// how things stand. The console is kept in a log, the control port is not.
fn sockets(words: &mut Words, folder: &str) {
    let path = |name: &str| format!("{folder}/{name}");
    let log = path(SERIAL_LOG);
    let mut socket = |id: &str, name: &str, log: Option<&str>| {
        let path = path(name);
        let mut options = vec![
            ("backend", "socket"),
            ("id", id),
            ("path", path.as_str()),
            ("server", "on"),
            ("wait", "off"),
        ];
        if let Some(log) = log {
            options.extend([("logfile", log), ("logappend", "on")]);
        }
        words.option("-chardev", &options);
    };
    socket("qmp", QMP_SOCKET, None);
    socket("status", STATUS_SOCKET, None);
    socket("console", CONSOLE_SOCKET, Some(&log));
    socket("control", CONTROL_SOCKET, None);
    words.pair("-mon", "chardev=qmp,mode=control");
    words.pair("-mon", "chardev=status,mode=control");
    words.pair("-serial", "chardev:console");
    words.pair("-serial", "chardev:control");
}

/// Arguments under construction.
#[derive(Debug, Default)]
struct Words(Vec<String>);

impl Words {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    fn pair(&mut self, option: &str, value: &str) {
        self.flags(&[option, value]);
    }

    /// Adds an option of `key=value` parts, in which a comma is written twice. A first key
    /// that QEMU takes without its name (`driver=`, `type=`, `backend=`) is left out.
    fn option(&mut self, option: &str, parts: &[(&str, &str)]) {
        let implied = match option {
            "-device" => "driver",
            "-netdev" => "type",
            "-chardev" => "backend",
            _ => "",
        };
        let parts: Vec<String> = parts
            .iter()
            .map(|(key, value)| {
                let value = value.replace(',', ",,");
                if *key == implied {
                    value
                } else {
                    format!("{key}={value}")
                }
            })
            .collect();
        self.pair(option, &parts.join(","));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteSize;
    use crate::vm::spec::{Disk, DiskContent, MacAddress, Nic};

    fn machine() -> Machine {
        Machine {
            name: "one".into(),
            groups: vec![],
            memory: ByteSize::from_mib(384),
            nics: vec![Nic {
                name: "eth0".into(),
                network: "br0".into(),
                address: None,
                mac: MacAddress::of_nic(0, 0),
                tap: "one-eth0".into(),
            }],
            disks: vec![Disk {
                name: "sda".into(),
                content: DiskContent::Root,
            }],
        }
    }

    fn words(beginning: Beginning) -> Vec<String> {
        arguments(&Start {
            machine: &machine(),
            accelerator: Accelerator::Tcg,
            kernel: "disks/vmlinuz",
            initrd: "disks/initrd",
            disks: &[Layers::new("base.qcow2".into()).with_top("one-sda.1.qcow2".into())],
            credential_count: 1,
            beginning,
        })
    }

    fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
        words
            .windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
            .collect()
    }

    #[test]
    fn a_machine_starts_paused_sandboxed_and_with_nothing_but_its_own() {
        let words = words(Beginning::Boot);
        for flag in ["-S", "-nodefaults", "-no-user-config", "-sandbox"] {
            assert!(words.iter().any(|word| word == flag), "{flag}");
        }
        assert_eq!(
            values(&words, "-device"),
            [
                "virtio-scsi-pci,id=scsi,addr=2",
                "scsi-hd,bus=scsi.0,scsi-id=0,id=sda,serial=sda,drive=n-one-sda.1",
                "virtio-net-pci,id=eth0,netdev=cable-eth0,mac=52:54:00:00:01:00,addr=8",
                "vmgenid,guid=auto",
            ]
        );
        assert_eq!(
            values(&words, "-netdev"),
            ["tap,id=cable-eth0,ifname=one-eth0,script=no,downscript=no"]
        );
        assert_eq!(
            values(&words, "-smbios"),
            ["type=11,path=machines/one/credential-0"]
        );
        assert_eq!(
            values(&words, "-serial"),
            ["chardev:console", "chardev:control"]
        );
        assert!(values(&words, "-incoming").is_empty());
    }

    #[test]
    fn a_saved_state_gets_the_same_devices() {
        let (boot, mut load) = (words(Beginning::Boot), words(Beginning::Load));
        assert_eq!(load.split_off(load.len() - 2), ["-incoming", "defer"]);
        assert_eq!(boot, load);
    }

    #[test]
    fn a_comma_in_a_value_is_no_end() {
        let mut words = Words::default();
        words.option("-chardev", &[("backend", "socket"), ("path", "a,b")]);
        assert_eq!(words.0, ["-chardev", "socket,path=a,,b"]);
    }
}
