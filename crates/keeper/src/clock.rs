//! The time, as states carry it and as CRI logs print it.

use keeper::protocol::UnixNanos;

/// Now, by CLOCK_REALTIME.
pub fn now() -> UnixNanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    UnixNanos(now.tv_sec * 1_000_000_000 + now.tv_nsec)
}

/// RFC 3339 with nanoseconds, in UTC: `2026-11-23T20:31:42.000000001Z`.
pub fn rfc3339(time: UnixNanos) -> String {
    let (seconds, nanos) = (time.0.div_euclid(1_000_000_000), time.0.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date by counting years from March, so that a leap day is a year's last (Howard Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_printed_as_rfc_3339_says() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_465_902_123_456_789, "2026-11-23T20:31:42.123456789Z"),
            (4_102_444_799_999_999_999, "2099-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(rfc3339(UnixNanos(nanos)), text);
        }
    }
}
