//! Creates a network link by a netlink message: what NET_ADMIN allows and its absence refuses.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::{Failure, Outcome, failed, say};

const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
/// NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE
const FLAGS: u16 = 0x1 | 0x4 | 0x200 | 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// IFNAMSIZ less the closing NUL.
const MAX_NAME: usize = 15;

pub fn mklink(args: &[String]) -> Outcome {
    let [name] = args else { return Err(Failure::Usage("a name, please")) };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Failure::Usage("a link's name has 1 to 15 bytes"));
    }
    create(name).map_err(failed(format!("create link {name}")))?;
    say(&format!("created {name}")).map(|()| 0)
}

fn create(name: &str) -> io::Result<()> {
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let kind = attribute(IFLA_INFO_KIND, b"veth");
    let attributes =
        [attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat()), attribute(IFLA_LINKINFO, &kind)]
            .concat();
    // struct nlmsghdr, then an ifinfomsg of zeros: any index, no flags.
    let length = u32::try_from(16 + 16 + attributes.len()).map_err(io::Error::other)?;
    let mut message = Vec::new();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&FLAGS.to_ne_bytes());
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&[0; 4 + 16]);
    message.extend_from_slice(&attributes);
    send(&socket, &message, SendFlags::empty())?;

    let mut answer = [0_u8; 4096];
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let answer = &answer[..count];
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
