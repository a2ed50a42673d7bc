//! What a privileged pod on the node's network can do to its packet filter: flush it, or take a table for itself.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::{Failure, Outcome, failed, process, say};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// NFNL_SUBSYS_NFTABLES in the upper byte, the message in the lower one.
const NEWTABLE: u16 = 10 << 8;
const DELTABLE: u16 = 10 << 8 | 2;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const UNSPEC: u8 = 0;
const INET: u8 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// NFT_TABLE_F_OWNER: nobody else may change it, and it goes with the socket that made it.
const OWNER: u32 = 2;

/// Deletes every table of this network namespace, as `nft flush ruleset` does.
pub fn flush(_: &[String]) -> Outcome {
    let socket = open().map_err(failed("open a netlink socket"))?;
    transaction(&socket, &[message(DELTABLE, REQUEST | ACK, UNSPEC, &[])])
        .map_err(failed("flush the rule set"))?;
    say("flushed").map(|()| 0)
}

/// Puts an empty table in the place of one, and keeps it from everybody else until it is ended.
pub fn seize(args: &[String]) -> Outcome {
    let [name] = args else { return Err(Failure::Usage("a table's name, please")) };
    let socket = open().map_err(failed("open a netlink socket"))?;
    let name = attribute(TABLE_NAME, &[name.as_bytes(), b"\0"].concat());
    let owned = [name.clone(), attribute(TABLE_FLAGS, &OWNER.to_be_bytes())].concat();
    // There or not, it is made, so that it can be deleted.
    let steps = [
        message(NEWTABLE, REQUEST | CREATE, INET, &name),
        message(DELTABLE, REQUEST, INET, &name),
        message(NEWTABLE, REQUEST | CREATE | ACK, INET, &owned),
    ];
    transaction(&socket, &steps).map_err(failed("seize the table"))?;
    say("seized")?;
    process::until_terminated().map(|()| 0)
}

fn open() -> io::Result<std::os::fd::OwnedFd> {
    let protocol = Some(netlink::NETFILTER);
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

fn transaction(socket: &std::os::fd::OwnedFd, steps: &[Vec<u8>]) -> io::Result<()> {
    // The resource id of a batch's ends names the subsystem.
    let end = |kind| raw(kind, REQUEST, &[UNSPEC, 0, 0, 10]);
    let bytes = [end(BATCH_BEGIN), steps.concat(), end(BATCH_END)].concat();
    send(socket, &bytes, SendFlags::empty())?;
    let mut answer = [0_u8; 4096];
    let (count, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    let answer = &answer[..count];
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    raw(kind, flags, &[&[family, 0, 0, 0], attributes].concat())
}

/// A struct nlmsghdr and what follows it.
fn raw(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], body]
        .concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
