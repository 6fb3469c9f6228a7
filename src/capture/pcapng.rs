//! Capture files: pcapng out, pcapng and pcap in.
//!
//! | block | holds |
//! |---|---|
//! | section header | the program, the lab, what the file is |
//! | interface description, each | name, what it is a view of, MAC address, nanoseconds as the unit of time |
//! | name resolution | the topology's addresses and stations |
//! | enhanced packet, each | the frame, its direction, and the remark on it as a comment |
//! | interface statistics, each | at the end: frames dropped |
//!
//! A file grows by whole blocks. Where the disk is full, what was written of a block is taken away again; a
//! process that is killed leaves whole blocks, at the very worst with a part of one at the end, which
//! [`read`] and Wireshark both take for what it is.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::name_resolution::{
    Ipv4Record, Ipv6Record, NameResolutionBlock, Record, UnknownRecord,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, NameRecordType, PcapBlockOwned, PcapError, create_reader};

use super::frame::Mac;
use super::names::Names;
use super::path::Interface;

/// A station's name: six bytes of address, then the name and a zero. In the format's draft, which pcap-file does not know yet.
const EUI48_RECORD: u16 = 3;
/// The decimal exponent of the unit of time.
const NANOSECONDS: u8 = 9;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// A block that is longer than this is no frame of a lab.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Room for some frames at the beginning; a longer block makes it grow.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Where a file grows.
pub trait Sink: Write {
    /// Takes away everything behind this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
#[error("failed to write the capture; the {frames} frames before are whole")]
pub struct WriteError {
    pub frames: u64,
    #[source]
    pub source: io::Error,
}

/// What is known before the first frame.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    pub program: &'a str,
    pub comment: &'a str,
    pub interfaces: &'a [Interface],
    /// The watched interfaces' own stations, in the same order.
    pub stations: &'a [Option<Mac>],
    pub names: &'a Names,
}

/// A frame for the file.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub interface: u32,
    pub at: Duration,
    pub bytes: &'a [u8],
    pub length: u32,
    /// Sent from where it was captured; `None` where that is not known.
    pub outgoing: Option<bool>,
    pub remark: Option<&'a str>,
}

/// Writes a capture, block by block.
pub struct Writer<S: Sink> {
    sink: S,
    encoder: PcapNgWriter<Vec<u8>>,
    whole_bytes: u64,
    whole_frames: u64,
    pending_frames: u64,
}

impl<S: Sink> std::fmt::Debug for Writer<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("whole_bytes", &self.whole_bytes)
            .finish_non_exhaustive()
    }
}

impl<S: Sink> Writer<S> {
    /// Begins a file with everything that is known before the first frame.
    pub fn new(sink: S, heading: Heading<'_>) -> Result<Self, WriteError> {
        let section = SectionHeaderBlock {
            options: vec![
                SectionHeaderOption::Comment(Cow::Owned(heading.comment.to_owned())),
                SectionHeaderOption::UserApplication(Cow::Owned(heading.program.to_owned())),
            ],
            ..SectionHeaderBlock::default()
        };
        let encoder = PcapNgWriter::with_section_header(Vec::new(), section);
        let mut writer = Self {
            sink,
            encoder: encoder.expect("memory takes every byte"),
            whole_bytes: 0,
            whole_frames: 0,
            pending_frames: 0,
        };
        for (interface, station) in heading.interfaces.iter().zip(heading.stations) {
            writer.encode(interface_block(interface, *station));
        }
        writer.encode(names_block(heading.names));
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a frame; it is in the file after the next [`flush`](Self::flush).
    pub fn add(&mut self, frame: &Recorded<'_>) {
        let mut options = Vec::new();
        if let Some(outgoing) = frame.outgoing {
            // The two lowest bits: 1 inbound, 2 outbound.
            options.push(EnhancedPacketOption::Flags(if outgoing { 2 } else { 1 }));
        }
        if let Some(remark) = frame.remark {
            options.push(EnhancedPacketOption::Comment(remark.into()));
        }
        self.encode(EnhancedPacketBlock {
            interface_id: frame.interface,
            timestamp: frame.at,
            original_len: frame.length,
            data: frame.bytes.into(),
            options,
        });
        self.pending_frames += 1;
    }

    /// Writes what was added. On an error the file ends with the last whole block before.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let bytes = std::mem::take(self.encoder.get_mut());
        let pending = std::mem::take(&mut self.pending_frames);
        let written = self.sink.write_all(&bytes).and_then(|()| self.sink.flush());
        if let Err(source) = written {
            let _ = self.sink.cut(self.whole_bytes);
            return Err(WriteError {
                frames: self.whole_frames,
                source,
            });
        }
        self.whole_bytes += bytes.len() as u64;
        self.whole_frames += pending;
        Ok(())
    }

    /// Ends the file with how much was missed.
    pub fn finish(mut self, at: Duration, dropped: &[u64]) -> Result<u64, WriteError> {
        for (interface, dropped) in (0..).zip(dropped) {
            let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
            self.encode(InterfaceStatisticsBlock {
                interface_id: interface,
                // Two words, the higher first, which pcap-file writes as one.
                timestamp: nanoseconds.rotate_left(32),
                options: vec![InterfaceStatisticsOption::IsbIfDrop(*dropped)],
            });
        }
        self.flush()?;
        Ok(self.whole_frames)
    }

    fn encode<'a>(&mut self, block: impl pcap_file::pcapng::PcapNgBlock<'a>) {
        let written = self.encoder.write_pcapng_block(block);
        written.expect("memory takes every byte, and every interface was described");
    }
}

fn interface_block(
    interface: &Interface,
    station: Option<Mac>,
) -> InterfaceDescriptionBlock<'static> {
    let mut options = vec![
        InterfaceDescriptionOption::IfName(Cow::Owned(interface.name.clone())),
        InterfaceDescriptionOption::IfDescription(Cow::Owned(interface.description.clone())),
        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
    ];
    if let Some(Mac(mac)) = station {
        options.push(InterfaceDescriptionOption::IfMacAddr(mac.to_vec().into()));
    }
    InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        // As long as the frame is.
        snaplen: 0,
        options,
    }
}

fn names_block(names: &Names) -> NameResolutionBlock<'static> {
    let addresses = names.addresses().map(|(address, name)| {
        let names = vec![Cow::Owned(name.to_owned())];
        match address {
            IpAddr::V4(address) => Record::Ipv4(Ipv4Record {
                ip_addr: address.octets().to_vec().into(),
                names,
            }),
            IpAddr::V6(address) => Record::Ipv6(Ipv6Record {
                ip_addr: address.octets().to_vec().into(),
                names,
            }),
        }
    });
    let stations = names.stations().map(|(mac, name)| {
        let mut value = mac.0.to_vec();
        value.extend(name.bytes().take(255));
        value.push(0);
        Record::Unknown(UnknownRecord {
            type_: EUI48_RECORD,
            length: u16::try_from(value.len()).expect("short"),
            value: value.into(),
        })
    });
    NameResolutionBlock {
        records: addresses.chain(stations).collect(),
        options: Vec::new(),
    }
}

/// A piece of a file that is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece<'a> {
    /// The next interface; frames name them by their place.
    Interface(Interface),
    Names(Names),
    Frame {
        interface: usize,
        at: Duration,
        bytes: &'a [u8],
        length: u32,
    },
}

/// How a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEnd {
    Whole,
    /// In the middle of a block, or in one that cannot be read.
    CutShort,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it is empty")]
    Empty,
    #[error("it is no capture: expected pcapng, or pcap")]
    NoCapture,
    #[error(
        "it was captured on another kind of link (number {0}), expected Ethernet; tcpdump's `any` is none, an interface's own name is"
    )]
    NoEthernet(i32),
    #[error("failed to read it")]
    Read,
}

/// Reads a file to its end, piece by piece.
pub fn read(
    source: impl Read + Send,
    each: &mut dyn FnMut(Piece<'_>),
) -> Result<FileEnd, ReadError> {
    let mut reader = match create_reader(READ_BUFFER_BYTES, source) {
        Ok(reader) => reader,
        Err(PcapError::Eof) => return Err(ReadError::Empty),
        Err(PcapError::ReadError) => return Err(ReadError::Read),
        Err(_) => return Err(ReadError::NoCapture),
    };
    let mut file = OpenFile::default();
    loop {
        let needs_more = match reader.next() {
            Ok((length, block)) => {
                file.block(&block, each)?;
                reader.consume(length);
                continue;
            }
            Err(PcapError::Eof) => return Ok(FileEnd::Whole),
            Err(PcapError::ReadError) => return Err(ReadError::Read),
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => true,
            Err(_) => false,
        };
        if !needs_more || reader.reader_exhausted() || !refill(&mut *reader, &mut file.room) {
            return if file.blocks == 0 {
                Err(ReadError::NoCapture)
            } else {
                Ok(FileEnd::CutShort)
            };
        }
    }
}

/// Reads on; with a larger buffer when this one is full.
fn refill(reader: &mut (dyn PcapReaderIterator + Send + '_), room: &mut usize) -> bool {
    let before = reader.data().len();
    let is_full = match reader.refill() {
        Ok(()) => false,
        Err(PcapError::BufferTooSmall) => true,
        Err(_) => return false,
    };
    if !is_full && (reader.data().len() > before || reader.reader_exhausted()) {
        return true;
    }
    *room = (*room).max(READ_BUFFER_BYTES) * 2;
    *room <= BLOCK_BYTES_MAX && reader.grow(*room) && reader.refill().is_ok()
}

/// What the blocks so far say about those to come.
#[derive(Default)]
struct OpenFile {
    blocks: u64,
    room: usize,
    /// Of pcapng's present section: units of time in a second, and seconds to add.
    clocks: Vec<(u128, i64)>,
    /// Interfaces of the sections before.
    interfaces_before: usize,
    interfaces: usize,
    /// Of pcap: units of time in a second.
    units: u128,
}

impl OpenFile {
    fn block(
        &mut self,
        block: &PcapBlockOwned<'_>,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), ReadError> {
        self.blocks += 1;
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                ethernet(header.network)?;
                self.units = if header.is_nanosecond_precision() {
                    NANOS_PER_SECOND
                } else {
                    1_000_000
                };
                self.interface(Interface::default(), each);
            }
            PcapBlockOwned::Legacy(frame) => {
                let fraction = u128::from(frame.ts_usec) * NANOS_PER_SECOND / self.units.max(1);
                let seconds = u128::from(frame.ts_sec) * NANOS_PER_SECOND;
                each(Piece::Frame {
                    interface: 0,
                    at: from_nanos(seconds + fraction),
                    bytes: head(frame.data, frame.caplen),
                    length: frame.origlen,
                });
            }
            PcapBlockOwned::NG(block) => self.pcapng(block, each)?,
        }
        Ok(())
    }

    fn interface(&mut self, interface: Interface, each: &mut dyn FnMut(Piece<'_>)) {
        self.interfaces += 1;
        each(Piece::Interface(interface));
    }

    fn pcapng(
        &mut self,
        block: &Block<'_>,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), ReadError> {
        match block {
            Block::SectionHeader(_) => {
                self.clocks.clear();
                self.interfaces_before = self.interfaces;
            }
            Block::InterfaceDescription(interface) => {
                ethernet(interface.linktype)?;
                let units = interface.ts_resolution().unwrap_or(1_000_000);
                self.clocks
                    .push((u128::from(units.max(1)), interface.ts_offset()));
                let text = |found: Option<Result<&str, _>>| {
                    found.and_then(Result::ok).unwrap_or_default().to_owned()
                };
                let interface = Interface {
                    name: text(interface.if_name()),
                    description: text(interface.if_description()),
                    station: None,
                };
                self.interface(interface, each);
            }
            Block::EnhancedPacket(packet) => {
                let index = packet.if_id as usize;
                let (units, offset) = self.clocks.get(index).copied().unwrap_or((1_000_000, 0));
                let ticks = (u128::from(packet.ts_high) << 32) | u128::from(packet.ts_low);
                let offset = u128::try_from(offset).unwrap_or(0) * NANOS_PER_SECOND;
                each(Piece::Frame {
                    interface: self.interfaces_before + index.min(self.clocks.len()),
                    at: from_nanos(ticks * NANOS_PER_SECOND / units + offset),
                    bytes: head(packet.data, packet.caplen),
                    length: packet.origlen,
                });
            }
            Block::SimplePacket(packet) => each(Piece::Frame {
                interface: self.interfaces_before,
                at: Duration::ZERO,
                bytes: head(packet.data, packet.origlen),
                length: packet.origlen,
            }),
            Block::NameResolution(block) => {
                let mut names = Names::default();
                for record in &block.nr {
                    take_name(&mut names, record.record_type, record.record_value);
                }
                each(Piece::Names(names));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Padding is no part of a frame.
fn head(data: &[u8], length: u32) -> &[u8] {
    &data[..data.len().min(length as usize)]
}

fn from_nanos(nanoseconds: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn ethernet(kind: Linktype) -> Result<(), ReadError> {
    if kind == Linktype::ETHERNET {
        Ok(())
    } else {
        Err(ReadError::NoEthernet(kind.0))
    }
}

fn take_name(names: &mut Names, kind: NameRecordType, value: &[u8]) {
    let split = |length: usize| {
        let (address, rest) = value.split_at_checked(length)?;
        let name = rest.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        let is_name = !name.is_empty() && !name.chars().any(char::is_control);
        is_name.then_some((address, name))
    };
    match kind.0 {
        1 => {
            if let Some((address, name)) = split(4) {
                let address = <[u8; 4]>::try_from(address).expect("four bytes");
                names.add_address(Ipv4Addr::from(address).into(), name);
            }
        }
        2 => {
            if let Some((address, name)) = split(16) {
                let address = <[u8; 16]>::try_from(address).expect("sixteen bytes");
                names.add_address(Ipv6Addr::from(address).into(), name);
            }
        }
        EUI48_RECORD => {
            if let Some((mac, name)) = split(6) {
                names.add_station(Mac(mac.try_into().expect("six bytes")), name);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Memory with so much room.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room - self.bytes.len());
            if fits == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for &mut Disk {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            self.bytes.truncate(usize::try_from(length).expect("small"));
            Ok(())
        }
    }

    fn names() -> Names {
        let mut names = Names::default();
        names.add_address(Ipv4Addr::new(10, 0, 0, 10).into(), "saisp-vm-1");
        names.add_address("fd00::1".parse().expect("an address"), "six");
        names.add_station(Mac([0x52, 0x54, 0, 0, 1, 0]), "saisp-vm-1");
        names
    }

    /// Writes so many frames of so many bytes until the disk is full; returns how many are whole.
    fn written(disk: &mut Disk, frames: usize, bytes: usize) -> Result<u64, WriteError> {
        let interfaces = [Interface {
            name: "br0".to_owned(),
            description: "the switch".to_owned(),
            station: None,
        }];
        let names = names();
        let heading = Heading {
            program: "halab",
            comment: "a test",
            interfaces: &interfaces,
            stations: &[Some(Mac([2; 6]))],
            names: &names,
        };
        let mut writer = Writer::new(disk, heading)?;
        for number in 0..frames {
            writer.add(&Recorded {
                interface: 0,
                at: Duration::new(1_800_000_000, 5) + Duration::from_nanos(number as u64),
                bytes: &vec![7; bytes],
                length: u32::try_from(bytes).expect("small"),
                outgoing: Some(number % 2 == 0),
                remark: (number % 3 == 0).then_some("a remark"),
            });
            writer.flush()?;
        }
        writer.finish(Duration::from_secs(1), &[3])
    }

    fn pieces(bytes: &[u8]) -> Result<(Vec<String>, FileEnd), ReadError> {
        let mut found = Vec::new();
        let end = read(bytes, &mut |piece| found.push(format!("{piece:?}")))?;
        Ok((found, end))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: usize::MAX,
        };
        assert_eq!(written(&mut disk, 3, 61).expect("room"), 3);
        let mut frames = 0;
        let mut found_names = Names::default();
        let end = read(&disk.bytes[..], &mut |piece| match piece {
            Piece::Frame {
                interface,
                at,
                bytes,
                length,
            } => {
                assert_eq!((interface, length, bytes), (0, 61, &[7; 61][..]));
                assert_eq!(at, Duration::new(1_800_000_000, 5 + frames));
                frames += 1;
            }
            Piece::Names(names) => found_names = names,
            Piece::Interface(interface) => assert_eq!(interface.name, "br0"),
        });
        assert_eq!(end.expect("readable"), FileEnd::Whole);
        assert_eq!(frames, 3);
        assert_eq!(found_names, names());
    }

    #[test]
    fn a_full_disk_leaves_whole_blocks() {
        let mut whole = Disk {
            bytes: Vec::new(),
            room: usize::MAX,
        };
        written(&mut whole, 5, 100).expect("room");
        let mut full = 0;
        for room in 0..whole.bytes.len() {
            let mut disk = Disk {
                bytes: Vec::new(),
                room,
            };
            let error = written(&mut disk, 5, 100).expect_err("the disk is full");
            if disk.bytes.is_empty() {
                continue;
            }
            full += 1;
            let (found, end) = pieces(&disk.bytes).expect("readable");
            assert_eq!(end, FileEnd::Whole, "with room for {room} bytes");
            let frames = found.iter().filter(|piece| piece.starts_with("Frame"));
            assert_eq!(frames.count() as u64, error.frames);
        }
        assert!(full > 0);
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_is_whole() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: usize::MAX,
        };
        written(&mut disk, 4, 90).expect("room");
        let (all, _) = pieces(&disk.bytes).expect("readable");
        let mut ends_short = 0;
        for length in 0..disk.bytes.len() {
            if let Ok((found, end)) = pieces(&disk.bytes[..length]) {
                assert!(all.starts_with(&found), "cut to {length}");
                ends_short += usize::from(end == FileEnd::CutShort);
            }
        }
        assert!(ends_short > 100, "{ends_short}");
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        assert!(matches!(pieces(b""), Err(ReadError::Empty)));
        assert!(matches!(pieces(b"#!/bin/sh\n"), Err(ReadError::NoCapture)));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = pieces(&bytes);
        }

        #[test]
        fn any_change_to_a_file_ends(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut disk = Disk { bytes: Vec::new(), room: usize::MAX };
            written(&mut disk, 2, 60).expect("room");
            for (index, byte) in changes {
                let at = index.index(disk.bytes.len());
                disk.bytes[at] = byte;
            }
            let _ = pieces(&disk.bytes);
        }
    }
}
