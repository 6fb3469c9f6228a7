//! One resource on one node → what its daemon is told.

use super::model::{Local, Meta, Section, Setting, Volume};
use super::options::DIGESTS;
use crate::base::diagnostic::Diagnostic;
use crate::replica::generation::{AfterSplitBrain, RoleConflict};
use crate::replica::message::ReplicationProtocol;
use crate::replica::settings::{
    Authentication, DiskSettings, MetaDisk, Names, NetSettings, OnIoError, ResyncSettings, Secret,
};

/// What the daemon of a volume is started with and told.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    pub names: Names,
    /// The path applications open.
    pub device: String,
    pub disk: DiskSettings,
    /// None where the other host's part is missing.
    pub net: Option<NetSettings>,
}

/// Lowers a resource. Only one volume can be replicated here; more are refused.
pub fn lower(local: &Local<'_>) -> Result<Lowered, Box<Diagnostic>> {
    let volume = match local.own.volumes.as_slice() {
        [volume] => volume,
        volumes => {
            return Err(Box::new(
                Diagnostic::error(format!(
                    "resource `{}` has {} volumes; one can be replicated here",
                    local.resource.name.text,
                    volumes.len()
                ))
                .at(&local.resource.origin)
                .help("make a resource of each volume"),
            ));
        }
    };
    Ok(Lowered {
        names: Names {
            resource: local.resource.name.text.clone(),
            minor: volume.minor,
            volume: volume.number,
        },
        device: volume.device_path(),
        disk: disk(local, volume),
        net: net(local)?,
    })
}

/// Returns where a volume's metadata lies.
pub fn meta_disk(meta: &Meta) -> MetaDisk {
    match meta {
        Meta::Internal => MetaDisk::Internal,
        Meta::External(path) => MetaDisk::External(path.into()),
        Meta::Indexed(path, index) => MetaDisk::Indexed(path.into(), *index),
    }
}

fn disk(local: &Local<'_>, volume: &Volume) -> DiskSettings {
    let get = |name: &str| local.disk_setting(volume, name);
    let defaults = DiskSettings::new(volume.disk.as_str().into(), meta_disk(&volume.meta));
    let number = |name: &str, default: u32| narrow(get(name), default);
    let yes = |name: &str, default: bool| get(name).map_or(default, |setting| setting.number == 1);
    let resync = ResyncSettings {
        rate_kib: number("resync-rate", defaults.resync.rate_kib),
        plan_ahead: number("c-plan-ahead", defaults.resync.plan_ahead),
        delay_target: number("c-delay-target", defaults.resync.delay_target),
        fill_target: number("c-fill-target", defaults.resync.fill_target),
        max_rate_kib: number("c-max-rate", defaults.resync.max_rate_kib),
        min_rate_kib: number("c-min-rate", defaults.resync.min_rate_kib),
    };
    DiskSettings {
        size_sectors: get("size").map_or(0, |setting| setting.number),
        on_io_error: match get("on-io-error").map(|setting| setting.value.as_str()) {
            Some("pass_on") => OnIoError::PassOn,
            Some("call-local-io-error") => OnIoError::CallLocalIoError,
            _ => OnIoError::Detach,
        },
        fencing: get("fencing").is_some_and(|setting| setting.value != "dont-care"),
        al_extents: u16::try_from(number("al-extents", defaults.al_extents.into()))
            .expect("the option's bounds are within 16 bits"),
        disk_flushes: yes("disk-flushes", defaults.disk_flushes),
        md_flushes: yes("md-flushes", defaults.md_flushes),
        resync,
        ..defaults
    }
}

fn net(local: &Local<'_>) -> Result<Option<NetSettings>, Box<Diagnostic>> {
    let Some(peer) = local.peer else {
        return Ok(None);
    };
    let get = |name: &str| local.setting(Section::Net, name);
    let defaults = NetSettings::new(local.own.address, peer.address);
    let number = |name: &str, default: u32| narrow(get(name), default);
    let yes = |name: &str, default: bool| get(name).map_or(default, |setting| setting.number == 1);
    let digest = |name: &str| get(name).map_or_else(String::new, |setting| setting.value.clone());
    let authentication = match (get("cram-hmac-alg"), get("shared-secret")) {
        (Some(algorithm), Some(secret)) => Some(Authentication {
            algorithm: algorithm.value.clone(),
            secret: Secret(secret.value.clone()),
        }),
        (Some(algorithm), None) => {
            return Err(Box::new(
                Diagnostic::error("`cram-hmac-alg` without a `shared-secret`")
                    .at(&algorithm.origin)
                    .label("both, or neither"),
            ));
        }
        // As the module: a secret without a digest is not used.
        (None, _) => None,
    };
    let mut policies = defaults.policies;
    let policy = |name: &str, default: AfterSplitBrain| {
        get(name).map_or(default, |setting| after_split_brain(&setting.value, local))
    };
    policies.no_primary = policy("after-sb-0pri", policies.no_primary);
    policies.one_primary = policy("after-sb-1pri", policies.one_primary);
    policies.two_primaries = policy("after-sb-2pri", policies.two_primaries);
    policies.always = yes("always-asbp", policies.always);
    policies.role_conflict = match get("rr-conflict").map(|setting| setting.value.as_str()) {
        Some("violently") => RoleConflict::Violently,
        Some("call-pri-lost") => RoleConflict::CallPriLost,
        _ => RoleConflict::Disconnect,
    };
    Ok(Some(NetSettings {
        protocol: match get("protocol").map(|setting| setting.value.as_str()) {
            Some("A") => ReplicationProtocol::A,
            Some("B") => ReplicationProtocol::B,
            _ => ReplicationProtocol::C,
        },
        authentication,
        timeout: number("timeout", defaults.timeout),
        ping_int: number("ping-int", defaults.ping_int),
        ping_timeout: number("ping-timeout", defaults.ping_timeout),
        connect_int: number("connect-int", defaults.connect_int),
        ko_count: number("ko-count", defaults.ko_count),
        max_epoch_size: number("max-epoch-size", defaults.max_epoch_size),
        max_buffers: number("max-buffers", defaults.max_buffers),
        sndbuf_size: number("sndbuf-size", defaults.sndbuf_size),
        rcvbuf_size: number("rcvbuf-size", defaults.rcvbuf_size),
        two_primaries: yes("allow-two-primaries", defaults.two_primaries),
        policies,
        verify_algorithm: digest("verify-alg"),
        checksum_algorithm: digest("csums-alg"),
        checksum_after_crash_only: yes(
            "csums-after-crash-only",
            defaults.checksum_after_crash_only,
        ),
        integrity_algorithm: digest("data-integrity-alg"),
        use_rle: yes("use-rle", defaults.use_rle),
        ..defaults
    }))
}

/// Every bound of the options that are lowered so is within 32 bits.
fn narrow(setting: Option<&Setting>, default: u32) -> u32 {
    setting.map_or(default, |setting| {
        u32::try_from(setting.number).expect("the option's bounds are within 32 bits")
    })
}

fn after_split_brain(value: &str, local: &Local<'_>) -> AfterSplitBrain {
    use AfterSplitBrain as Policy;
    if let Some(node) = value.strip_prefix("discard-node-") {
        let is_own = match &local.own.kind {
            super::model::HostKind::On(names) => names.iter().any(|name| name.text == node),
            super::model::HostKind::Floating => false,
        };
        return if is_own {
            Policy::DiscardLocal
        } else {
            Policy::DiscardRemote
        };
    }
    match value {
        "discard-younger-primary" => Policy::DiscardYoungerPrimary,
        "discard-older-primary" => Policy::DiscardOlderPrimary,
        "discard-zero-changes" => Policy::DiscardZeroChanges,
        "discard-least-changes" => Policy::DiscardLeastChanges,
        "discard-local" => Policy::DiscardLocal,
        "discard-remote" => Policy::DiscardRemote,
        "consensus" => Policy::Consensus,
        "discard-secondary" => Policy::DiscardSecondary,
        "call-pri-lost-after-sb" => Policy::CallPriLostAfterSb,
        "violently-as0p" => Policy::ViolentlyAs0p,
        _ => Policy::Disconnect,
    }
}

/// Whether a digest can be computed here.
pub fn is_digest(name: &str) -> bool {
    DIGESTS.contains(&name)
}
