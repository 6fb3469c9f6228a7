//! `filesystem`: a file system on a block device, made only where there is none.

use super::args::Args;
use super::outcome::Refusal;

/// What a task comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Nothing,
    Make,
    /// Whatever signatures there are go.
    Wipe,
}

/// What is known of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The type blkid sees: a file system's, or any other signature's.
    pub found: Option<String>,
    /// Where it is mounted.
    pub mounted_at: Option<String>,
}

pub fn plan(args: Args<'_>, facts: &Facts) -> Result<Plan, Refusal> {
    let device = args.word("dev");
    let plan = match (args.word("state"), &facts.found) {
        ("absent", None) => Plan::Nothing,
        ("absent", Some(_)) => Plan::Wipe,
        (_, None) => Plan::Make,
        (_, Some(found)) if found == args.word("fstype") => Plan::Nothing,
        (_, Some(_)) if args.flag("force") => Plan::Make,
        (_, Some(found)) => {
            let msg = format!("'{device}' is already used as {found}, use force=true to overwrite");
            return Err(Refusal::new(msg));
        }
    };
    match &facts.mounted_at {
        Some(place) if plan != Plan::Nothing => Err(Refusal::new(format!(
            "'{device}' is mounted at {place}; unmount it first"
        ))),
        _ => Ok(plan),
    }
}

/// Returns the command that makes the file system.
pub fn command(args: Args<'_>) -> Vec<String> {
    let fstype = args.word("fstype");
    let mut command = vec![format!("mkfs.{fstype}")];
    // What is there was looked at before; asked again, mkfs would wait for an answer.
    let force = match fstype {
        "ext2" | "ext3" | "ext4" | "ext4dev" => Some("-F"),
        "btrfs" | "xfs" | "f2fs" | "reiserfs" => Some("-f"),
        _ => None,
    };
    command.extend(force.map(str::to_owned));
    let options = args.word("opts").split_whitespace();
    command.extend(options.map(str::to_owned));
    command.push(args.word("dev").to_owned());
    command
}

/// Returns where a device is mounted; `names` are all of its names.
pub fn mounted_at(mounts: &str, names: &[String]) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (device, place) = (fields.next()?, fields.next()?);
        names
            .iter()
            .any(|name| name == device)
            .then(|| place.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(
        args: &Value,
        found: Option<&str>,
        mounted_at: Option<&str>,
    ) -> Result<Plan, Refusal> {
        let args = args.as_object().expect("an object");
        let facts = Facts {
            found: found.map(str::to_owned),
            mounted_at: mounted_at.map(str::to_owned),
        };
        plan(Args(args), &facts)
    }

    #[test]
    fn what_is_there_stays_unless_forced() {
        let wanted = json!({"dev": "/dev/sdb1", "fstype": "ext4", "state": "present"});
        assert_eq!(planned(&wanted, None, None), Ok(Plan::Make));
        assert_eq!(
            planned(&wanted, Some("ext4"), Some("/mnt")),
            Ok(Plan::Nothing)
        );
        let refused = planned(&wanted, Some("drbd"), None).unwrap_err();
        assert_eq!(
            refused.msg,
            "'/dev/sdb1' is already used as drbd, use force=true to overwrite"
        );
        let forced =
            json!({"dev": "/dev/sdb1", "fstype": "xfs", "state": "present", "force": true});
        assert_eq!(planned(&forced, Some("ext4"), None), Ok(Plan::Make));
        let refused = planned(&forced, Some("ext4"), Some("/mnt")).unwrap_err();
        assert_eq!(
            refused.msg,
            "'/dev/sdb1' is mounted at /mnt; unmount it first"
        );
    }

    #[test]
    fn an_absent_file_system_is_wiped_once() {
        let gone = json!({"dev": "/dev/sdb1", "state": "absent"});
        assert_eq!(planned(&gone, None, None), Ok(Plan::Nothing));
        assert_eq!(planned(&gone, Some("ext4"), None), Ok(Plan::Wipe));
        let refused = planned(&gone, Some("ext4"), Some("/var/www")).unwrap_err();
        assert!(refused.msg.contains("/var/www"), "{refused}");
    }

    #[test]
    fn the_command_asks_nobody() {
        let args = json!({"dev": "/dev/drbd0", "fstype": "ext4", "opts": "-m 0 -L www"});
        let args = args.as_object().expect("an object");
        assert_eq!(
            command(Args(args)),
            ["mkfs.ext4", "-F", "-m", "0", "-L", "www", "/dev/drbd0"]
        );
    }

    #[test]
    fn a_device_is_mounted_under_any_of_its_names() {
        let mounts = "/dev/sda / ext4 rw 0 0\n/dev/ublkb0 /var/www ext4 rw 0 0\n";
        let names = ["/dev/drbd0".to_owned(), "/dev/ublkb0".to_owned()];
        assert_eq!(mounted_at(mounts, &names).as_deref(), Some("/var/www"));
        assert_eq!(mounted_at(mounts, &["/dev/sdb1".to_owned()]), None);
    }
}
