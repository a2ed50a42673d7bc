//! Moments as Kubernetes reads and prints them: RFC 3339, years 0 to 9999, printed in UTC.

/// How much of a second is printed: `Time` has none of it, `MicroTime` six digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Seconds,
    Micros,
}

/// A moment, in seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    seconds: i64,
    nanos: u32,
}

/// The year 0 and the last second of 9999.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

impl Instant {
    /// None outside the years that Go prints as JSON.
    pub fn new(seconds: i64, nanos: u32) -> Option<Instant> {
        ((FIRST..=LAST).contains(&seconds) && nanos < 1_000_000_000).then_some(Instant { seconds, nanos })
    }

    /// Since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Reads RFC 3339 with seconds, an optional fraction and an offset.
    pub fn parse(text: &str) -> Option<Instant> {
        let b = text.as_bytes();
        let number = |range: std::ops::Range<usize>| {
            let part = b.get(range)?;
            part.iter()
                .all(u8::is_ascii_digit)
                .then(|| part.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0')))
        };
        let within = |range, low: i64, high: i64| number(range).filter(|n| (low..=high).contains(n));
        let mark = |at: usize, c: u8| (b.get(at) == Some(&c)).then_some(());

        let (year, month) = (number(0..4)?, within(5..7, 1, 12)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let day = within(8..10, 1, days)?;
        let (hour, minute, second) = (within(11..13, 0, 23)?, within(14..16, 0, 59)?, within(17..19, 0, 59)?);
        for (at, c) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
            mark(at, c)?;
        }

        let (mut at, mut nanos) = (19, 0u32);
        if matches!(b.get(at), Some(b'.' | b',')) {
            let digits = b[at + 1..].iter().take_while(|c| c.is_ascii_digit());
            let mut count = 0;
            for (place, digit) in digits.enumerate() {
                // What is finer than a nanosecond is cut.
                if place < 9 {
                    nanos += u32::from(digit - b'0') * 10u32.pow(8 - place as u32);
                }
                count += 1;
            }
            if count == 0 {
                return None;
            }
            at += 1 + count;
        }
        let offset = match b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 => {
                mark(at + 3, b':')?;
                let seconds = within(at + 1..at + 3, 0, 24)? * 3600 + within(at + 4..at + 6, 0, 60)? * 60;
                if *sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        let days = days_from_civil(year, month, day);
        Instant::new(days * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos)
    }

    pub fn print(self, precision: Precision) -> String {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        let fraction = match precision {
            Precision::Seconds => String::new(),
            Precision::Micros => format!(".{:06}", self.nanos / 1000),
        };
        format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
    }
}

/// Days since 1970. Counted in cycles of 400 years that begin on 1 March, so that the leap day is the last of a year.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * 146_097 + day_of_cycle - 719_468
}

/// Year, month and day; the other way round.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_cycle = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_cycle + cycle * 400 + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_322_984, "2026-01-02T03:03:04Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (FIRST, "0000-01-01T00:00:00Z"),
        ] {
            let instant = Instant::new(seconds, 0).unwrap();
            assert_eq!(instant.print(Precision::Seconds), text);
            assert_eq!(Instant::parse(text), Some(instant));
        }
        let fine = Instant::parse("2026-01-01T00:00:00.0000051239+01:00").unwrap();
        assert_eq!(fine.print(Precision::Micros), "2025-12-31T23:00:00.000005Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-01-01",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01T00:00:00+1:00",
            "0000-01-01T00:00:00+01:00",
            "２026-01-01T00:00:00Z",
        ] {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
        assert_eq!(Instant::new(LAST + 1, 0), None);
        assert_eq!(Instant::new(0, 1_000_000_000), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in FIRST..=LAST, micros in 0u32..1_000_000) {
            let instant = Instant::new(seconds, micros * 1000).unwrap();
            prop_assert_eq!(Instant::parse(&instant.print(Precision::Micros)), Some(instant));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9TZ:.+-]{0,36}", any in ".{0,30}") {
            let _ = (Instant::parse(&text), Instant::parse(&any));
        }
    }
}
