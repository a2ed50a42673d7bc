//! Lengths of time as Go's `time.ParseDuration` reads them: `1h30m`, `1.5s`, `-2ms`.

use crate::field::quote;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit { unit: String, text: String },
}

/// Nanoseconds, within what 64 bits hold.
pub fn parse(text: &str) -> Result<i64, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum: u128 = 0;
    while !rest.is_empty() {
        let whole = take_digits(&mut rest);
        let fraction = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                take_digits(&mut rest)
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(end);
        rest = after;
        let nanos: u64 = match unit {
            "" => return Err(Error::MissingUnit(text.to_owned())),
            "ns" => 1,
            // Both of Unicode's letters for micro.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(Error::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        let number = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| invalid())? };
        let part: f64 = format!("0.{fraction}0").parse().map_err(|_| invalid())?;
        sum += u128::from(number) * u128::from(nanos) + (part * nanos as f64) as u128;
        if sum > 1 << 63 {
            return Err(invalid());
        }
    }
    let sum = i128::try_from(sum).map_err(|_| invalid())?;
    i64::try_from(if text.starts_with('-') { -sum } else { sum }).map_err(|_| invalid())
}

fn take_digits<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits
}
