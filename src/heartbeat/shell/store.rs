//! What outlives the daemon: generation and UUID.
//!
//! `hb_generation` is 16 bytes: a decimal number right-aligned in 15 columns, and a line
//! feed. It is raised and on disk before the first packet: a node that came back with an
//! old generation would be taken for a replay of itself.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::paths::Paths;
use crate::heartbeat::config::ha_cf::{GenerationMethod, HaCf, UuidFrom};
use crate::heartbeat::detector::Uuid;

/// Returns the generation of this start, saved.
pub(super) fn next_generation(paths: &Paths, ha_cf: &HaCf, unix_seconds: u64) -> io::Result<u64> {
    fs::create_dir_all(paths.state_folder())?;
    let path = paths.state_folder().join("hb_generation");
    let generation = match (ha_cf.generation_method, fs::read_to_string(&path)) {
        (GenerationMethod::Time, _) => unix_seconds,
        (GenerationMethod::File, Ok(text)) => parse(&text).unwrap_or(unix_seconds) + 1,
        (GenerationMethod::File, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            unix_seconds + 1
        }
        (GenerationMethod::File, Err(error)) => return Err(error),
    };
    save(&path, format!("{generation:>15}\n").as_bytes())?;
    Ok(generation)
}

/// Returns the node's UUID, made up once.
pub(super) fn uuid(paths: &Paths, ha_cf: &HaCf, own_name: &str) -> io::Result<Uuid> {
    if ha_cf.uuid_from == UuidFrom::NodeName {
        return Ok(uuid_of_name(own_name));
    }
    fs::create_dir_all(paths.state_folder())?;
    let path = paths.state_folder().join("hb_uuid");
    if let Ok(Ok(uuid)) = fs::read(&path).map(Uuid::try_from) {
        return Ok(uuid);
    }
    let mut uuid = Uuid::default();
    File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    // Marks it as a random one (RFC 4122).
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    save(&path, &uuid)?;
    Ok(uuid)
}

fn parse(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The name's bytes, repeated: different names, different UUIDs, for names up to 16 bytes.
fn uuid_of_name(name: &str) -> Uuid {
    let mut uuid = Uuid::default();
    for (at, byte) in name.bytes().enumerate() {
        let place = at % uuid.len();
        uuid[place] = uuid[place].rotate_left(1) ^ byte;
    }
    uuid
}

/// Replaces a file so that a crash leaves the old or the new one.
fn save(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::heartbeat::config::ha_cf;

    fn file(text: &str) -> HaCf {
        let text = format!("bcast eth0\nnode a b\n{text}");
        ha_cf::parse(&Source::new("ha.cf", text), &mut Vec::new()).expect("a valid file")
    }

    #[test]
    fn each_start_has_a_higher_generation_in_heartbeats_format() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::below(folder.path());
        assert_eq!(
            next_generation(&paths, &file(""), 1000).expect("saved"),
            1001
        );
        assert_eq!(next_generation(&paths, &file(""), 5).expect("saved"), 1002);
        let text = fs::read(paths.state_folder().join("hb_generation")).expect("a file");
        assert_eq!(text, b"           1002\n");
    }

    #[test]
    fn the_uuid_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::below(folder.path());
        let first = uuid(&paths, &file(""), "a").expect("made");
        assert_eq!(uuid(&paths, &file(""), "a").expect("read"), first);
        let named = file("uuidfrom nodename\n");
        assert_ne!(
            uuid(&paths, &named, "saisp-vm-2").expect("made"),
            uuid(&paths, &named, "saisp-vm-3").expect("made")
        );
    }
}
