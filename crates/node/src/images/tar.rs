//! Reads tar archives as image layers use them: ustar, GNU long names, pax headers. Everything is bounded, and what
//! is not understood is an error: a layer is never unpacked in part.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

const BLOCK: usize = 512;
/// Linux's PATH_MAX: a longer name can be no file.
const MAX_NAME: u64 = 4096;
/// Capabilities are 20 bytes; user attributes rarely more than a few kilobytes.
const MAX_PAX: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("the archive ends in the middle of {0}")]
    Truncated(&'static str),
    #[error("no tar archive: the header at byte {0} has a wrong checksum")]
    Checksum(u64),
    #[error("{name:?}: the header's {field} is no number")]
    Number { name: PathBuf, field: &'static str },
    #[error("a name in the archive is longer than {MAX_NAME} bytes")]
    NameTooLong,
    #[error("the extended headers of an entry in the archive are larger than {MAX_PAX} bytes")]
    PaxTooLarge,
    #[error("a malformed extended header in the archive")]
    Pax,
    #[error("{name:?}: sparse files in the {0} format are not supported", .format)]
    Sparse { name: PathBuf, format: &'static str },
    #[error("{name:?}: entries of type {kind:?} are not supported")]
    Kind { name: PathBuf, kind: char },
    #[error("read: {0}")]
    Io(#[from] io::Error),
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry's header, pax and GNU extensions applied.
#[derive(Debug)]
pub struct Entry {
    pub name: PathBuf,
    pub link: PathBuf,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Bytes of content that follow.
    pub size: u64,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, with their names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What pax headers before an entry say of it.
#[derive(Default)]
struct Pax {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Pax {
    fn text(&self, key: &str) -> Option<&[u8]> {
        self.records.iter().rev().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn number(&self, key: &str) -> Result<Option<u64>, TarError> {
        self.text(key).map(|value| parse_text(value).ok_or(TarError::Pax)).transpose()
    }
}

fn parse_text<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A tar archive being read. Call [`Archive::next`], read its content through [`Archive::content`], and so on; content
/// left unread is skipped.
pub struct Archive<R> {
    reader: R,
    offset: u64,
    /// Content of the current entry not yet read, and the padding after it.
    left: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, offset: 0, left: 0, padding: 0 }
    }

    /// Bytes read so far; after [`Archive::next`], where the entry's content begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or None at the end. An archive that lacks the two closing blocks of zeros but ends at an
    /// entry's border is whole: several writers leave them out.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        let mut pax = Pax::default();
        let mut pax_left = MAX_PAX;
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let mut block = [0_u8; BLOCK];
            match self.fill(&mut block)? {
                0 if pax.records.is_empty() && long_name.is_none() && long_link.is_none() => return Ok(None),
                BLOCK => {}
                _ => return Err(TarError::Truncated("a header")),
            }
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = Header(&block);
            if !header.checksum_is_right() {
                return Err(TarError::Checksum(self.offset - BLOCK as u64));
            }
            let raw_size = header.number(124..136, "size")?;
            match block[156] {
                b'x' => {
                    // Of all headers of one entry: they are kept until it comes, and a bomb is many of them.
                    let data = self.extension(raw_size, pax_left, TarError::PaxTooLarge)?;
                    pax_left -= raw_size;
                    parse_pax(&data, &mut pax.records)?;
                }
                // A global header: a comment for the whole archive (git writes one), nothing that layers use.
                b'g' => {
                    self.extension(raw_size, MAX_PAX, TarError::PaxTooLarge)?;
                }
                b'L' => long_name = Some(self.extension(raw_size, MAX_NAME, TarError::NameTooLong)?),
                b'K' => long_link = Some(self.extension(raw_size, MAX_NAME, TarError::NameTooLong)?),
                kind => return self.entry(&header, kind, raw_size, &pax, long_name, long_link).map(Some),
            }
        }
    }

    /// The content of the entry that [`Archive::next`] returned last. A truncated archive is an error, never a short
    /// file.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        kind: u8,
        raw_size: u64,
        pax: &Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let own_name = pax.text("path").map(<[u8]>::to_vec).or(long_name.map(until_nul));
        let name = path(own_name.unwrap_or_else(|| header.name()))?;
        let own_link = pax.text("linkpath").map(<[u8]>::to_vec).or(long_link.map(until_nul));
        let link = path(own_link.unwrap_or_else(|| until_nul(header.0[157..257].to_vec())))?;
        if pax.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(TarError::Sparse { name, format: "pax" });
        }
        let number = |range, field| {
            header.number(range, field).map_err(|_| TarError::Number { name: name.clone(), field })
        };
        let kind = match kind {
            // An old archive's directory is a file whose name ends in a slash.
            b'0' | 0 | b'7' if header.name().ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(TarError::Sparse { name, format: "GNU" }),
            other => return Err(TarError::Kind { name, kind: char::from(other) }),
        };
        let declared = pax.number("size")?.unwrap_or(raw_size);
        // Larger than any file can be, and near where rounding up to blocks would overflow.
        if i64::try_from(declared).is_err() {
            return Err(TarError::Number { name, field: "size" });
        }
        // Some writers give a hard link the size of its target though no content follows; POSIX allows content there, but
        // no writer of layers emits it.
        let size = if kind == Kind::File { declared } else { 0 };
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(Entry {
            mode: u32::try_from(number(100..108, "mode")?).unwrap_or(u32::MAX) & 0o7777,
            uid: match pax.number("uid")? {
                Some(uid) => uid,
                None => number(108..116, "uid")?,
            },
            gid: match pax.number("gid")? {
                Some(gid) => gid,
                None => number(116..124, "gid")?,
            },
            size,
            mtime: match pax.text("mtime") {
                Some(text) => pax_time(text).ok_or(TarError::Pax)?,
                None => (i64::try_from(number(136..148, "mtime")?).unwrap_or(0), 0),
            },
            xattrs: pax
                .records
                .iter()
                .filter_map(|(key, value)| {
                    let name = key.strip_prefix(b"SCHILY.xattr.")?;
                    Some((String::from_utf8_lossy(name).into_owned(), value.clone()))
                })
                .collect(),
            name,
            link,
            kind,
        })
    }

    /// Reads an extension's content whole.
    fn extension(&mut self, size: u64, limit: u64, too_large: TarError) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(too_large);
        }
        let mut data = vec![0; usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(0)];
        if self.fill(&mut data)? != data.len() {
            return Err(TarError::Truncated("an extended header"));
        }
        data.truncate(usize::try_from(size).unwrap_or(0));
        Ok(data)
    }

    /// Reads until `buffer` is full or the archive ends.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.reader.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += done as u64;
        Ok(done)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink())?;
        self.offset += skipped;
        // The last entry's padding may be missing, its content may not.
        if skipped < self.left {
            return Err(TarError::Truncated("an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// See [`Archive::content`].
pub struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let archive = &mut *self.0;
        let want = buffer.len().min(usize::try_from(archive.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = archive.reader.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                TarError::Truncated("an entry").to_string(),
            ));
        }
        archive.left -= count as u64;
        archive.offset += count as u64;
        Ok(count)
    }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn checksum_is_right(&self) -> bool {
        let sum: u64 = self
            .0
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        self.number(148..156, "checksum").is_ok_and(|stored| stored == sum)
    }

    /// Octal text, or base 256 with the top bit set (GNU).
    fn number(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<u64, TarError> {
        let bytes = &self.0[range];
        let bad = || TarError::Number { name: PathBuf::from(OsString::from_vec(self.name())), field };
        if bytes[0] & 0x80 != 0 {
            // A negative number, as in a time before the epoch, is no size or id; as a time it is the epoch.
            if bytes[0] & 0x40 != 0 {
                return if field == "mtime" { Ok(0) } else { Err(bad()) };
            }
            return bytes[1..].iter().try_fold(u64::from(bytes[0] & 0x3f), |value, byte| {
                value.checked_mul(256).and_then(|value| value.checked_add(u64::from(*byte))).ok_or_else(bad)
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let text = text.trim_matches([' ', '\0']);
        if text.is_empty() {
            return Ok(0);
        }
        u64::from_str_radix(text, 8).map_err(|_| bad())
    }

    fn name(&self) -> Vec<u8> {
        let name = until_nul(self.0[..100].to_vec());
        let prefix = until_nul(self.0[345..500].to_vec());
        // Only POSIX' magic says that the prefix is one; GNU's old format keeps other things there.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name;
        }
        [prefix, name].join(&b'/')
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn path(bytes: Vec<u8>) -> Result<PathBuf, TarError> {
    if bytes.len() as u64 > MAX_NAME {
        return Err(TarError::NameTooLong);
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Records of the form `<length> <key>=<value>\n`, the length counting itself.
fn parse_pax(mut data: &[u8], records: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), TarError> {
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or(TarError::Pax)?;
        let length: usize = parse_text(&data[..space]).ok_or(TarError::Pax)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(TarError::Pax);
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Pax)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // A NUL in a path would let two readers see two names.
        if (key == b"path" || key == b"linkpath") && value.contains(&0) {
            return Err(TarError::Pax);
        }
        records.push((key.to_vec(), value.to_vec()));
        data = &data[length..];
    }
    Ok(())
}

/// `<seconds>[.<fraction>]`; a time before the epoch becomes the epoch.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('-') {
        return Some((0, 0));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((seconds, digits.parse().ok()?))
}
