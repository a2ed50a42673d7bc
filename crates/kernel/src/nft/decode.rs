//! Netlink attributes to the model. What this program never writes becomes an `Other`, which equals nothing it wants.

use super::encode::{FIB_IIF, FIB_RESULT_OIF, FIB_SADDR};
use super::model::*;
use crate::netlink::{Attributes, attributes};

/// The `comment` in user data.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let value = rest.get(..usize::from(*len))?;
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        data = &rest[usize::from(*len)..];
    }
    None
}

pub(super) fn set_type(attrs: &Attributes<'_>) -> Option<SetType> {
    let flags = attrs.be32(3).unwrap_or(0);
    let maps_to = match attrs.be32(6) {
        _ if flags & 8 == 0 => MapsTo::Nothing,
        Some(0xffff_ff00) => MapsTo::Verdict,
        Some(number) => MapsTo::Data(types(number)),
        None => return None,
    };
    let learns = flags & 0x20 != 0;
    Some(SetType { key: types(attrs.be32(4)?), maps_to, interval: flags & 4 != 0, learns })
}

fn types(mut number: u32) -> Vec<DataType> {
    let mut parts = Vec::new();
    while number != 0 {
        parts.push(DataType::from_number(number & 0x3f));
        number >>= 6;
    }
    parts.reverse();
    parts
}

pub(super) fn element(attrs: &Attributes<'_>) -> Option<((Vec<u8>, bool), Data)> {
    let end = attrs.be32(3).unwrap_or(0) & 1 != 0;
    let key = attrs.nested(1).get(1).unwrap_or_default().to_vec();
    let data = match attrs.get(2) {
        None => Data::Nothing,
        Some(data) => {
            let data = attributes(data);
            match data.get(1) {
                Some(value) => Data::Value(value.to_vec()),
                None => Data::Verdict(verdict(&data.nested(2))?),
            }
        }
    };
    Some(((key, end), data))
}

fn verdict(attrs: &Attributes<'_>) -> Option<Verdict> {
    let chain = || attrs.str(2).map(str::to_string);
    Some(match attrs.be32(1)? as i32 {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        code => Verdict::Other(code),
    })
}

pub(super) fn base(attrs: &Attributes<'_>) -> Option<Base> {
    let hook = attributes(attrs.get(4)?);
    Some(Base {
        kind: match attrs.str(7)? {
            "filter" => ChainKind::Filter,
            "nat" => ChainKind::Nat,
            _ => ChainKind::Other,
        },
        hook: Hook::from_number(hook.be32(1)?),
        priority: hook.be32(2)? as i32,
        drop: attrs.be32(5) == Some(0),
    })
}

pub(super) fn rule(attrs: &Attributes<'_>) -> Rule {
    let exprs = attrs.nested(4).map(|(_, payload)| {
        let expr = attributes(payload);
        let name = expr.str(1).unwrap_or_default();
        decode_expr(name, &expr.nested(2)).unwrap_or_else(|| Expr::Other(name.to_string()))
    });
    Rule(exprs.collect())
}

fn decode_expr(name: &str, a: &Attributes<'_>) -> Option<Expr> {
    let data = |kind| a.nested(kind).get(1).map(<[u8]>::to_vec);
    Some(match name {
        "meta" if a.be32(3).is_some() => match a.be32(2)? {
            3 => Expr::SetMark { from: a.be32(3)? },
            12 => Expr::SetTrace { from: a.be32(3)? },
            _ => return None,
        },
        "dynset" if a.be32(3) == Some(1) && a.get(7).is_none() => {
            Expr::Update { set: a.str(1)?.to_string(), key: a.be32(4)?, milliseconds: a.be64(6).unwrap_or(0) }
        }
        "meta" => Expr::Meta {
            key: match a.be32(2)? {
                3 => Meta::Mark,
                4 => Meta::Iif,
                5 => Meta::Oif,
                6 => Meta::IifName,
                7 => Meta::OifName,
                15 => Meta::NfProto,
                16 => Meta::L4Proto,
                n => Meta::Other(n),
            },
            to: a.be32(1)?,
        },
        "payload" => Expr::Payload {
            base: match a.be32(2)? {
                0 => Header::Link,
                1 => Header::Network,
                2 => Header::Transport,
                n => Header::Other(n),
            },
            offset: a.be32(3)?,
            len: a.be32(4)?,
            to: a.be32(1)?,
        },
        "ct" => {
            let direction = || {
                Some(match a.u8(3)? {
                    0 => Direction::Original,
                    _ => Direction::Reply,
                })
            };
            let key = match a.be32(2)? {
                0 => Ct::State,
                2 => Ct::Status,
                19 => Ct::SourceIp(direction()?),
                21 => Ct::SourceIp6(direction()?),
                11 => Ct::SourcePort(direction()?),
                n => Ct::Other(n),
            };
            Expr::Ct { key, to: a.be32(1)? }
        }
        "cmp" => Expr::Cmp {
            op: match a.be32(2)? {
                0 => Op::Eq,
                1 => Op::Neq,
                2 => Op::Lt,
                3 => Op::Lte,
                4 => Op::Gt,
                5 => Op::Gte,
                n => Op::Other(n),
            },
            from: a.be32(1)?,
            data: data(3)?,
        },
        "bitwise" if a.be32(6).unwrap_or(0) == 0 => {
            Expr::Bitwise { from: a.be32(1)?, to: a.be32(2)?, mask: data(4)?, xor: data(5)? }
        }
        "lookup" => Expr::Lookup {
            set: a.str(1)?.to_string(),
            from: a.be32(2)?,
            to: a.be32(3),
            inverted: a.be32(5).unwrap_or(0) & 1 != 0,
        },
        "immediate" if a.be32(1) == Some(0) => Expr::Verdict(verdict(&a.nested(2).nested(2))?),
        "immediate" => Expr::Immediate { to: a.be32(1)?, data: data(2)? },
        "nat" => Expr::Nat {
            family: a.be32(2)? as u8,
            source: a.be32(1)? == 0,
            address: a.be32(3)?,
            port: a.be32(5),
        },
        "masq" => Expr::Masquerade,
        "reject" => match a.be32(1)? {
            0 => Expr::RejectIcmp { code: a.u8(2)? },
            1 => Expr::RejectTcpReset,
            _ => return None,
        },
        "numgen" => Expr::Numgen { modulus: a.be32(2)?, random: a.be32(3)? == 1, to: a.be32(1)? },
        "fib" if a.be32(2) == Some(3) && a.be32(3) == Some(2) => Expr::FibDaddrType { to: a.be32(1)? },
        "fib" if a.be32(2) == Some(FIB_RESULT_OIF) && a.be32(3) == Some(FIB_SADDR | FIB_IIF) => {
            Expr::FibReversePath { to: a.be32(1)? }
        }
        _ => return None,
    })
}
