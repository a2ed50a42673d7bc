//! `resource.Quantity`: amounts with SI suffixes, their canonical form and their order.
//!
//! Kept as whole nano-units in an i128: upstream's smallest step is the nano, its largest value 2^63-1 units.

use std::fmt;

/// The message upstream gives for text that is no quantity.
pub const FORMAT_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;

/// The family of suffixes a quantity was written in, and is written back in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Quantity {
    /// Errors with [`FORMAT_ERROR`]. Values past 2^63-1 are cut there, parts of a nano rounded away from zero, as
    /// upstream does.
    pub fn parse(text: &str) -> Result<Quantity, &'static str> {
        // The longest quantity that can say anything: bounds the work on hostile input.
        if text.is_empty() || text.len() > 256 {
            return Err(FORMAT_ERROR);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(FORMAT_ERROR);
        }
        let (format, base, exponent) = suffix_of(suffix).ok_or(FORMAT_ERROR)?;

        // nanos = number * base^exponent * 10^9. Scale the digits first, so that nothing is lost.
        let max: i128 = i128::from(i64::MAX) * NANO;
        let mut digits: i128 = 0;
        let mut scale: i32 = 9;
        let mut rounded = false;
        for c in whole.bytes().chain(fraction.bytes()) {
            // 25 digits are more than 2^63 units in nanos and leave room to multiply.
            if digits > 10i128.pow(24) {
                rounded |= c != b'0';
                scale += 1;
            } else {
                digits = digits * 10 + i128::from(c - b'0');
            }
        }
        scale -= fraction.len() as i32;
        let mut nanos = digits;
        if base == 2 {
            let factor = 1i128 << exponent.clamp(0, 60);
            nanos = nanos.checked_mul(factor).unwrap_or(i128::MAX);
        } else {
            scale += exponent;
        }
        while scale > 0 && nanos != 0 && nanos <= max {
            nanos *= 10;
            scale -= 1;
        }
        while scale < 0 && nanos != 0 {
            rounded |= nanos % 10 != 0;
            nanos /= 10;
            scale += 1;
            if nanos == 0 {
                break;
            }
        }
        if rounded {
            nanos = nanos.saturating_add(1);
        }
        let nanos = nanos.min(max);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Thousandths, rounded up.
    pub fn milli(self) -> i128 {
        self.nanos.div_euclid(MILLI) + i128::from(self.nanos.rem_euclid(MILLI) != 0)
    }

    #[must_use]
    pub fn round_up_to_milli(self) -> Quantity {
        Quantity { nanos: self.milli() * MILLI, ..self }
    }
}

/// The format, the base and the exponent a suffix stands for.
fn suffix_of(suffix: &str) -> Option<(Format, i32, i32)> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Some(match suffix {
        "n" => (DecimalSi, 10, -9),
        "u" => (DecimalSi, 10, -6),
        "m" => (DecimalSi, 10, -3),
        "" => (DecimalSi, 10, 0),
        "k" => (DecimalSi, 10, 3),
        "M" => (DecimalSi, 10, 6),
        "G" => (DecimalSi, 10, 9),
        "T" => (DecimalSi, 10, 12),
        "P" => (DecimalSi, 10, 15),
        "E" => (DecimalSi, 10, 18),
        "Ki" => (BinarySi, 2, 10),
        "Mi" => (BinarySi, 2, 20),
        "Gi" => (BinarySi, 2, 30),
        "Ti" => (BinarySi, 2, 40),
        "Pi" => (BinarySi, 2, 50),
        "Ei" => (BinarySi, 2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (DecimalExponent, 10, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 300)?)
        }
    })
}

/// The canonical form: no fraction, the largest suffix that loses nothing. Powers of two only for whole values of
/// 1024 and more.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.is_whole() && whole.abs() >= 1024 {
            let mut value = whole;
            let mut step = 0;
            while step < 6 && value % 1024 == 0 {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let mut value = self.nanos;
        let mut step = 0;
        while step < 9 && value % 1000 == 0 {
            value /= 1000;
            step += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = step as i32 * 3 - 9;
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_upstreams() {
        let table = [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("100M", "100M"),
            ("1000000k", "1G"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("0", "0"),
            ("-5m", "-5m"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.0000000001", "1n"),
            ("16Ei", "9223372036854775807"),
            ("99999999999999999999999999999999999999999999999999", "9223372036854775807"),
            ("+3Gi", "3Gi"),
        ];
        for (input, want) in table {
            let got = Quantity::parse(input).expect(input);
            assert_eq!(got.to_string(), want, "{input}");
            assert_eq!(Quantity::parse(want).expect(want), got, "{input} reads back");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for input in ["", "x", "1x", "1 ", "1..2", ".", "1Kib", "e3", "--1", "1e", "1e999999999", "١"] {
            assert!(Quantity::parse(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn order_is_by_amount_not_by_spelling() {
        let q = |s: &str| Quantity::parse(s).expect(s);
        assert!(q("1Gi") > q("1G"));
        assert!(q("1") == q("1000m"));
        assert!(q("100m") < q("0.2"));
        assert_eq!(q("0.0001").round_up_to_milli().to_string(), "1m");
    }
}
