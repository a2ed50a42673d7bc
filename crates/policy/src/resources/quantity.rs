//! Kubernetes' `Quantity` (`k8s.io/apimachinery/pkg/api/resource`): a decimal number with a binary (`Ki` … `Ei`), decimal
//! (`n` … `E`) or exponent (`e3`, `E3`) suffix.

use std::{fmt, str::FromStr};

const NANO: i128 = 1_000_000_000;
/// Larger numbers are cut to this, as upstream does.
const MAX: i128 = i64::MAX as i128 * NANO;

/// A quantity in billionths; more precise ones are rounded away from zero, as upstream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

/// Upstream's sentence for what it cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    pub const ZERO: Self = Self(0);

    pub fn from_units(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    pub fn from_millis(millis: i64) -> Self {
        Self(i128::from(millis) * (NANO / 1000))
    }

    /// Whole units, rounded up (upstream `Value`).
    pub fn value(self) -> i64 {
        ceil_div(self.0, NANO)
    }

    /// Thousandths, rounded up (upstream `MilliValue`).
    pub fn milli_value(self) -> i64 {
        ceil_div(self.0, NANO / 1000)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub fn saturating_add(self, other: Self) -> Self {
        Self((self.0 + other.0).clamp(-MAX, MAX))
    }

    /// How many `divisor`s, rounded up: `resourceFieldRef`. A zero divisor counts as 1.
    pub fn divided_by(self, divisor: Self) -> i64 {
        let divisor = if divisor.0 == 0 { NANO } else { divisor.0 };
        ceil_div(self.0, divisor)
    }
}

fn ceil_div(a: i128, b: i128) -> i64 {
    let quotient = a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0);
    quotient.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError);
        }
        let scale = Scale::parse(suffix).ok_or(QuantityError)?;
        let magnitude = scale.apply(whole, fraction);
        Ok(Self(if negative { -magnitude } else { magnitude }))
    }
}

enum Scale {
    /// 2^n
    Binary(u32),
    /// 10^n
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::Decimal(0),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?;
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                // An exponent that does not fit is as good as a very large one.
                let exponent: i32 =
                    exponent.parse().unwrap_or(if exponent.starts_with('-') { -1000 } else { 1000 });
                Self::Decimal(exponent.clamp(-1000, 1000))
            }
        })
    }

    /// `whole.fraction` × scale in billionths, rounded up, cut at [`MAX`]. Works on decimal digits: nothing overflows.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        let digits = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0'));
        // The value is `digits` × 10^shift (× 2^n).
        let (binary, decimal) = match *self {
            Self::Binary(bits) => (1i128 << bits, 0),
            Self::Decimal(exponent) => (1, exponent),
        };
        let whole_digits = whole.len() as i32;
        let mut total: i128 = 0;
        let mut rest = false;
        for (index, digit) in digits.enumerate() {
            if digit == 0 {
                continue;
            }
            // Power of ten of this digit, in billionths.
            let power = whole_digits - 1 - index as i32 + decimal + 9;
            if power > 28 {
                return MAX;
            }
            if power >= 0 {
                let unit = 10i128.pow(power as u32);
                match digit.checked_mul(unit).and_then(|v| v.checked_mul(binary)) {
                    Some(value) => total = total.saturating_add(value),
                    None => return MAX,
                }
            } else if power > -20 {
                let numerator = digit * binary;
                let denominator = 10i128.pow(power.unsigned_abs());
                total = total.saturating_add(numerator / denominator);
                rest |= numerator % denominator != 0;
            } else {
                rest = true;
            }
            if total > MAX {
                return MAX;
            }
        }
        (total + i128::from(rest)).min(MAX)
    }
}

impl fmt::Display for Quantity {
    /// Decimal, in the largest of `n`, `u`, `m`, none that is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(NANO, ""), (NANO / 1000, "m"), (1000, "u"), (1, "n")] {
            if self.0 % unit == 0 {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        unreachable!("every number is a multiple of one")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_with_every_suffix() {
        for (text, value, millis) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("+1", 1, 1000),
            ("-1", -1, -1000),
            ("1.5", 2, 1500),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("-1500m", -1, -1500),
            ("1n", 1, 1),
            ("0.1m", 1, 1),
            ("2u", 1, 1),
            ("1k", 1_000, 1_000_000),
            ("1M", 1_000_000, 1_000_000_000),
            ("1G", 1_000_000_000, 1_000_000_000_000),
            ("1T", 1_000_000_000_000, 1_000_000_000_000_000),
            ("1P", 1_000_000_000_000_000, 1_000_000_000_000_000_000),
            ("1Ki", 1024, 1_024_000),
            ("1.5Ki", 1536, 1_536_000),
            ("64Mi", 64 << 20, (64 << 20) * 1000),
            ("1Gi", 1 << 30, (1 << 30) * 1000),
            ("1Ti", 1 << 40, (1 << 40) * 1000),
            ("1Pi", 1 << 50, (1i64 << 50) * 1000),
            ("1e3", 1000, 1_000_000),
            ("1E3", 1000, 1_000_000),
            ("12e-1", 2, 1200),
            ("5e-10", 1, 1),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|_| panic!("{text} is a quantity"));
            assert_eq!((quantity.value(), quantity.milli_value()), (value, millis), "{text}");
        }
        assert_eq!("1E".parse::<Quantity>().unwrap().value(), 1_000_000_000_000_000_000);
        assert_eq!("4Ei".parse::<Quantity>().unwrap().value(), 4 << 60);
    }

    #[test]
    fn too_large_quantities_are_cut_to_the_largest() {
        for text in ["9E9999", "1e99999999999999999999", "99999999999999999999999999", "8Ei", "1e19"] {
            assert_eq!(text.parse::<Quantity>().unwrap().value(), i64::MAX, "{text}");
        }
        assert_eq!("1e-99999999999999999999".parse::<Quantity>().unwrap().value(), 1);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", "-", ".", "1.2.3", "1KB", "1ki", "1mi", "m", "1 Gi", "1e", "1e+", "--1", "0x10", "1m2", "é"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError), "{text}");
        }
    }

    #[test]
    fn division_rounds_up() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("250m").divided_by(quantity("1")), 1);
        assert_eq!(quantity("250m").divided_by(quantity("1m")), 250);
        assert_eq!(quantity("65Mi").divided_by(quantity("1Gi")), 1);
        assert_eq!(quantity("3Gi").divided_by(quantity("1Mi")), 3072);
        assert_eq!(quantity("3").divided_by(Quantity::ZERO), 3);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
            let _ = text.parse::<Quantity>().map(|q| (q.value(), q.milli_value(), q.to_string()));
        }

        #[test]
        fn what_is_written_is_read_back(nanos in -1_000_000_000_000_000i64..1_000_000_000_000_000) {
            let quantity = Quantity(i128::from(nanos));
            prop_assert_eq!(quantity.to_string().parse::<Quantity>(), Ok(quantity));
        }
    }
}
