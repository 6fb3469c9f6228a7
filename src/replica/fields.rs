//! Big-endian fields in byte buffers, and the sizes everything here is counted in.
//!
//! DRBD's wire and its metadata are big endian throughout, except the bitmap.

/// A sector, the unit of positions on the wire and in the metadata, in bytes.
pub const SECTOR: u64 = 512;
/// What one bit of the bitmap stands for, in bytes.
pub const BLOCK: u64 = 4096;
/// What one bit of the bitmap stands for, in sectors.
pub const SECTORS_PER_BLOCK: u64 = BLOCK / SECTOR;

/// Reads fixed fields from the front of a buffer; says when the buffer ends too early.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The buffer ended inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], TooShort> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TooShort)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TooShort> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TooShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, TooShort> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, TooShort> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, TooShort> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, TooShort> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, TooShort> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Appends fixed fields to a buffer.
pub trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_i32(&mut self, value: i32);
    fn put_u64(&mut self, value: u64);
    fn put_zeroes(&mut self, count: usize);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_zeroes(&mut self, count: usize) {
        self.resize(self.len() + count, 0);
    }
}

/// A length in memory as a number of the formats, which are 64 bits wide.
pub fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits in 64 bits")
}

/// A number of the formats as a length in memory; call it for what has been bounded.
pub fn narrow(length: u64) -> usize {
    usize::try_from(length).expect("a bounded length fits in memory")
}

/// A bounded length as a 32-bit field.
pub fn field32(length: u64) -> u32 {
    u32::try_from(length).expect("a bounded length fits in 32 bits")
}
