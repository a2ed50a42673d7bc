//! A gRPC health service (`grpc.health.v1.Health/Check`) on plain HTTP/2, by hand: what is asked does not matter, so
//! nothing of a request is read but its frames. It serves as long as the file `/tmp/not-serving` is not there.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
};

const PREFACE: usize = 24;
const LONGEST_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn connections(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                // A client that goes away in the middle concerns nobody else.
                thread::spawn(move || serve(stream).ok());
            }
            Err(error) => crate::complain(&format!("accept: {error}")),
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE])?;
    frame(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > LONGEST_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let number = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => frame(&mut stream, PING, ACK, 0, &payload)?,
            HEADERS | DATA if flags & END_STREAM != 0 => answer(&mut stream, number)?,
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

fn answer(stream: &mut TcpStream, number: u32) -> io::Result<()> {
    let status = if Path::new("/tmp/not-serving").exists() { 2 } else { 1 };
    // `:status: 200` by its index, the rest as literals.
    let mut head = vec![0x88];
    literal(&mut head, "content-type", "application/grpc");
    frame(stream, HEADERS, END_HEADERS, number, &head)?;
    frame(stream, DATA, 0, number, &[0, 0, 0, 0, 2, 8, status])?;
    let mut trailers = Vec::new();
    literal(&mut trailers, "grpc-status", "0");
    frame(stream, HEADERS, END_HEADERS | END_STREAM, number, &trailers)
}

/// A header that goes into no table; names and values here are shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

fn frame(stream: &mut TcpStream, kind: u8, flags: u8, number: u32, payload: &[u8]) -> io::Result<()> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes)
}
