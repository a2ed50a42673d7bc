//! SPDY/3.1 framing, as Kubernetes' older streaming clients speak it (`github.com/moby/spdystream`): streams with
//! compressed headers and data. That library has no flow control, so neither is any kept here: the bounded queues and the
//! connection itself hold a fast sender back.

use std::{collections::HashMap, io};

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};

/// What a client does.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream is opened; the names of its headers are in lower case.
    Open {
        stream: u32,
        headers: HashMap<String, String>,
    },
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// The client sends no more on the stream.
    End {
        stream: u32,
    },
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Frame {
    /// Accepts a stream.
    Reply {
        stream: u32,
    },
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// No more is sent on the stream.
    End {
        stream: u32,
    },
    /// Refuses or breaks off a stream.
    Reset {
        stream: u32,
    },
    Pong {
        id: u32,
    },
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const CANCEL: u32 = 5;
/// A frame's length has 24 bits; clients send pieces of 32 KiB.
const MAX_DATA: usize = 4 << 20;
const MAX_HEADERS: usize = 64 << 10;

/// Reads and writes frames on `transport` in two tasks. The queue of events ends with the connection; when the sender of
/// frames is dropped, what was queued is written and the connection is closed.
pub(super) fn start(
    transport: impl AsyncRead + AsyncWrite + Send + 'static,
) -> (mpsc::Receiver<Event>, mpsc::Sender<Frame>) {
    let (reader, writer) = tokio::io::split(transport);
    let (events, event_receiver) = mpsc::channel(16);
    let (frames, frame_receiver) = mpsc::channel(16);
    // Weak: or the reader would hold the writer, and with it the connection, open for ever.
    let pongs = frames.downgrade();
    tokio::spawn(async move {
        // However a connection ends, its end is all there is to tell.
        read(reader, &events, &pongs).await.ok();
    });
    tokio::spawn(async move {
        write(writer, frame_receiver).await.ok();
    });
    (event_receiver, frames)
}

async fn read<T: AsyncRead>(
    mut reader: ReadHalf<T>,
    events: &mpsc::Sender<Event>,
    pongs: &mpsc::WeakSender<Frame>,
) -> io::Result<()> {
    let mut inflate = Inflate(Decompress::new(true));
    loop {
        let mut header = [0; 8];
        reader.read_exact(&mut header).await?;
        let [a, b, c, d, flags, lengths @ ..] = header;
        let length = u32::from_be_bytes([0, lengths[0], lengths[1], lengths[2]]) as usize;
        let control = a & 0x80 != 0;
        if length > if control { MAX_HEADERS } else { MAX_DATA } {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "SPDY frame too large"));
        }
        let mut payload = BytesMut::zeroed(length);
        reader.read_exact(&mut payload).await?;
        if !control {
            let stream = u32::from_be_bytes([a, b, c, d]);
            if length > 0 {
                events.send(Event::Data { stream, bytes: payload.freeze() }).await.map_err(gone)?;
            }
            if flags & FIN != 0 {
                events.send(Event::End { stream }).await.map_err(gone)?;
            }
            continue;
        }
        let word = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or(io::Error::from(io::ErrorKind::InvalidData))
        };
        match u16::from_be_bytes([c, d]) {
            SYN_STREAM => {
                let stream = word(0)? & 0x7fff_ffff;
                let headers = inflate.headers(payload.get(10..).unwrap_or_default())?;
                events.send(Event::Open { stream, headers }).await.map_err(gone)?;
                if flags & FIN != 0 {
                    events.send(Event::End { stream }).await.map_err(gone)?;
                }
            }
            // Headers are part of one compressed stream: skipping any would garble those after them.
            SYN_REPLY | HEADERS => drop(inflate.headers(payload.get(4..).unwrap_or_default())?),
            RST_STREAM => events.send(Event::End { stream: word(0)? & 0x7fff_ffff }).await.map_err(gone)?,
            // The client's pings are odd; ours, of which there are none, would be even.
            PING if word(0)? % 2 == 1 => {
                if let Some(frames) = pongs.upgrade() {
                    frames.send(Frame::Pong { id: word(0)? }).await.map_err(gone)?;
                }
            }
            GOAWAY => return Ok(()),
            // SETTINGS, WINDOW_UPDATE and what may come after version 3.1: nothing that is kept here.
            _ => {}
        }
    }
}

/// Nobody wants to know any more.
fn gone<T>(_: mpsc::error::SendError<T>) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

async fn write<T: AsyncWrite>(mut writer: WriteHalf<T>, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut deflate = Deflate::new()?;
    while let Some(frame) = frames.recv().await {
        let (head, body) = match frame {
            Frame::Reply { stream } => {
                // A reply needs no headers: a count of zero.
                let block = deflate.block(&0_u32.to_be_bytes())?;
                (control(SYN_REPLY, 4 + block.len(), stream), block.into())
            }
            Frame::Data { stream, bytes } => (data(stream, 0, bytes.len()), bytes),
            Frame::End { stream } => (data(stream, FIN, 0), Bytes::new()),
            Frame::Reset { stream } => {
                (control(RST_STREAM, 8, stream), Bytes::copy_from_slice(&CANCEL.to_be_bytes()))
            }
            Frame::Pong { id } => (control(PING, 4, id), Bytes::new()),
        };
        writer.write_all(&head).await?;
        writer.write_all(&body).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

/// The frame's header and the first word of its payload.
fn control(kind: u16, length: usize, first: u32) -> Vec<u8> {
    let [kind_high, kind_low] = kind.to_be_bytes();
    let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let [f0, f1, f2, f3] = first.to_be_bytes();
    vec![0x80, 3, kind_high, kind_low, 0, l0, l1, l2, f0, f1, f2, f3]
}

fn data(stream: u32, flags: u8, length: usize) -> Vec<u8> {
    let [s0, s1, s2, s3] = (stream & 0x7fff_ffff).to_be_bytes();
    let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    vec![s0, s1, s2, s3, flags, l0, l1, l2]
}

/// The headers of one direction, which are one zlib stream with a dictionary that SPDY/3 defines.
struct Inflate(Decompress);

impl Inflate {
    fn headers(&mut self, mut data: &[u8]) -> io::Result<HashMap<String, String>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "malformed SPDY headers");
        let mut block = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(data, &mut buffer, FlushDecompress::Sync);
            data = data.get(usize::try_from(self.0.total_in() - read).unwrap_or(0)..).unwrap_or_default();
            let count = usize::try_from(self.0.total_out() - written).unwrap_or(0);
            block.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if block.len() > MAX_HEADERS {
                return Err(invalid());
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| invalid())?;
                }
                Err(_) => return Err(invalid()),
                Ok(Status::Ok) if count == buffer.len() || (!data.is_empty() && count > 0) => {}
                Ok(_) if data.is_empty() => break,
                Ok(_) => return Err(invalid()),
            }
        }
        parse(&block).ok_or_else(invalid)
    }
}

/// `count`, then length and text of each name and value. Several values of a name are separated by NUL: the first is taken.
fn parse(mut block: &[u8]) -> Option<HashMap<String, String>> {
    fn number(block: &mut &[u8]) -> Option<usize> {
        let (bytes, rest) = block.split_first_chunk()?;
        *block = rest;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    }
    fn text(block: &mut &[u8]) -> Option<String> {
        let length = number(block)?;
        let bytes = block.get(..length)?;
        *block = block.get(length..)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
    let mut headers = HashMap::new();
    for _ in 0..number(&mut block)? {
        let name = text(&mut block)?.to_ascii_lowercase();
        let value = text(&mut block)?;
        headers.insert(name, value.split('\0').next().unwrap_or_default().to_owned());
    }
    Some(headers)
}

struct Deflate(Compress);

impl Deflate {
    fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).map_err(io::Error::other)?;
        Ok(Self(compress))
    }

    fn block(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(data.len() + 128);
        self.0.compress_vec(data, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(out)
    }
}

/// Names and values that are likely, each with its length before it (SPDY draft 3, section 2.6.10.1).
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS {
        bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(REST.as_bytes());
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client for the tests of the server: its side of the framing.
    pub struct Client<T> {
        pub transport: T,
        deflate: Deflate,
        inflate: Inflate,
    }

    impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
        pub fn new(transport: T) -> Self {
            Self { transport, deflate: Deflate::new().unwrap(), inflate: Inflate(Decompress::new(true)) }
        }

        pub async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
            let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                block.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                block.extend_from_slice(text.as_bytes());
            }
            let block = self.deflate.block(&block).unwrap();
            self.transport.write_all(&control(SYN_STREAM, 10 + block.len(), stream)).await.unwrap();
            self.transport.write_all(&[0; 6]).await.unwrap();
            self.transport.write_all(&block).await.unwrap();
        }

        pub async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
            self.transport.write_all(&data(stream, u8::from(end), bytes.len())).await.unwrap();
            self.transport.write_all(bytes).await.unwrap();
        }

        pub async fn ping(&mut self, id: u32) {
            self.transport.write_all(&control(PING, 4, id)).await.unwrap();
        }

        /// Stream, content, whether it is the stream's last; for control frames type, payload and false. None at the end.
        pub async fn frame(&mut self) -> Option<(u32, Vec<u8>, bool)> {
            let mut header = [0; 8];
            self.transport.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
            let mut payload = vec![0; length];
            self.transport.read_exact(&mut payload).await.ok()?;
            if header[0] & 0x80 == 0 {
                let stream = u32::from_be_bytes(header[..4].try_into().unwrap());
                return Some((stream, payload, header[4] & FIN != 0));
            }
            let kind = u16::from_be_bytes([header[2], header[3]]);
            if kind == SYN_REPLY {
                assert!(self.inflate.headers(&payload[4..]).unwrap().is_empty());
            }
            Some((0x8000_0000 | u32::from(kind), payload, false))
        }
    }

    #[test]
    fn the_dictionary_is_the_one_that_clients_use() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        // Every SPDY/3 header stream begins 78 bb e3 c6 a7 c2: the dictionary's Adler-32.
        let checksum = Compress::new(Compression::default(), true).set_dictionary(&dictionary).unwrap();
        assert_eq!(checksum, 0xe3c6_a7c2);
    }

    #[test]
    fn headers_come_through_one_block_after_the_other() {
        let mut deflate = Deflate::new().unwrap();
        let mut inflate = Inflate(Decompress::new(true));
        for round in 0..3 {
            let value = "v".repeat(round * 5000);
            let mut block = 1_u32.to_be_bytes().to_vec();
            for text in ["StreamType", &value] {
                block.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                block.extend_from_slice(text.as_bytes());
            }
            let headers = inflate.headers(&deflate.block(&block).unwrap());
            assert_eq!(headers.unwrap(), HashMap::from([("streamtype".to_owned(), value)]));
        }
        assert!(inflate.headers(b"garbage").is_err());
        let bomb = Inflate(Decompress::new(true))
            .headers(&Deflate::new().unwrap().block(&vec![0; 1 << 20]).unwrap());
        assert!(bomb.is_err());
    }
}
