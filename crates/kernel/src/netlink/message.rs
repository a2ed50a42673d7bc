//! Writing messages.

use std::borrow::Cow;

/// Flags of a request (`netlink(7)`).
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const APPEND: u16 = 0x800;
pub(crate) const DUMP: u16 = 0x300;

const NESTED: u16 = 0x8000;

/// Messages that go to the kernel in one send. The sequence number of a message is its place in the batch.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    objects: Vec<Cow<'static, str>>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the message with that sequence number is about.
    pub(crate) fn object(&self, sequence: u32) -> Option<&str> {
        self.objects.get(sequence as usize).map(AsRef::as_ref)
    }

    /// Appends a message; `fill` writes its fixed part and its attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        object: impl Into<Cow<'static, str>>,
        fill: impl FnOnce(&mut Batch),
    ) {
        let start = self.bytes.len();
        let sequence = self.objects.len() as u32;
        self.objects.push(object.into());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) {
        debug_assert!(payload.len() < usize::from(u16::MAX) - 4);
        self.bytes.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    pub(crate) fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// With a closing NUL.
    pub(crate) fn attr_str(&mut self, kind: u16, value: &str) {
        self.bytes.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// An attribute made of attributes. It may hold at most 65 531 bytes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Batch)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = self.bytes.len() - start;
        debug_assert!(len <= usize::from(u16::MAX), "a nested attribute of {len} bytes");
        self.bytes[start..start + 2].copy_from_slice(&(len as u16).to_ne_bytes());
    }

    pub(crate) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Bytes written so far, for those who must keep a nested attribute under 64 kB.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}
