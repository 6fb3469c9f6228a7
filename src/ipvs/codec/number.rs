//! The numbers of the interface: message types, commands, attribute kinds, flags.

pub(crate) const NETLINK_HEADER_LEN: usize = 16;
pub(crate) const GENERIC_HEADER_LEN: usize = 4;

pub(crate) const TYPE_NOOP: u16 = 1;
pub(crate) const TYPE_ERROR: u16 = 2;
pub(crate) const TYPE_DONE: u16 = 3;
pub(crate) const TYPE_OVERRUN: u16 = 4;

pub(crate) mod command {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
    pub(crate) const GET_INFO: u8 = 15;
    pub(crate) const ZERO: u8 = 16;
    pub(crate) const FLUSH: u8 = 17;

    pub(crate) const CONTROLLER_GET_FAMILY: u8 = 3;
}

pub(crate) mod kind {
    pub(crate) const SERVICE: u16 = 1;
    pub(crate) const DEST: u16 = 2;
    pub(crate) const DAEMON: u16 = 3;
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;

    /// The answer to `GET_INFO` counts by itself.
    pub(crate) const INFO_VERSION: u16 = 1;
    pub(crate) const INFO_TABLE_SIZE: u16 = 2;

    pub(crate) const CONTROLLER_FAMILY_NUMBER: u16 = 1;
    pub(crate) const CONTROLLER_FAMILY_NAME: u16 = 2;

    pub(crate) mod service {
        pub(crate) const FAMILY: u16 = 1;
        pub(crate) const PROTOCOL: u16 = 2;
        pub(crate) const ADDRESS: u16 = 3;
        pub(crate) const PORT: u16 = 4;
        pub(crate) const MARK: u16 = 5;
        pub(crate) const SCHEDULER: u16 = 6;
        pub(crate) const FLAGS: u16 = 7;
        pub(crate) const TIMEOUT: u16 = 8;
        pub(crate) const NETMASK: u16 = 9;
        pub(crate) const STATS: u16 = 10;
        pub(crate) const ENGINE: u16 = 11;
        pub(crate) const STATS64: u16 = 12;
    }

    pub(crate) mod destination {
        pub(crate) const ADDRESS: u16 = 1;
        pub(crate) const PORT: u16 = 2;
        pub(crate) const FORWARDING: u16 = 3;
        pub(crate) const WEIGHT: u16 = 4;
        pub(crate) const UPPER: u16 = 5;
        pub(crate) const LOWER: u16 = 6;
        pub(crate) const ACTIVE: u16 = 7;
        pub(crate) const INACTIVE: u16 = 8;
        pub(crate) const PERSISTENT: u16 = 9;
        pub(crate) const STATS: u16 = 10;
        pub(crate) const FAMILY: u16 = 11;
        pub(crate) const STATS64: u16 = 12;
        pub(crate) const TUNNEL_TYPE: u16 = 13;
        pub(crate) const TUNNEL_PORT: u16 = 14;
        pub(crate) const TUNNEL_FLAGS: u16 = 15;
    }

    pub(crate) mod daemon {
        pub(crate) const STATE: u16 = 1;
        pub(crate) const INTERFACE: u16 = 2;
        pub(crate) const SYNC_ID: u16 = 3;
        pub(crate) const MESSAGE_MAX: u16 = 4;
        pub(crate) const GROUP: u16 = 5;
        pub(crate) const GROUP6: u16 = 6;
        pub(crate) const PORT: u16 = 7;
        pub(crate) const TTL: u16 = 8;
    }
}

/// Bits of a service's flags. 0x2 is the kernel's own mark of a service in its table.
pub(crate) mod flag {
    pub(crate) const PERSISTENT: u32 = 0x01;
    pub(crate) const ONE_PACKET: u32 = 0x04;
    /// The first of three that follow each other.
    pub(crate) const SCHEDULER: u32 = 0x08;
}

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
