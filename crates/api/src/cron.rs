//! When a CronJob runs: the schedules that Kubernetes reads with `github.com/robfig/cron/v3`, whose standard parser, words of
//! refusal and steps through daylight saving these are. `minute hour day-of-month month day-of-week`, or `@daily` and its
//! like, or `@every 1h30m`.
//!
//! ```
//! # use api::cron::Schedule;
//! let workdays_at_half_past_six = Schedule::parse("30 6 * * mon-fri").unwrap();
//! // From Thursday, 1 January 1970, 00:00 UTC.
//! assert_eq!(workdays_at_half_past_six.next(0, |_| 0), Some(6 * 3600 + 30 * 60));
//! ```

mod duration;
mod next;
#[cfg(test)]
mod tests;

use crate::field::quote;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    At(Times),
    /// Whole seconds between two runs.
    Every(i64),
}

/// The minutes of a calendar. Each set has a bit for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    minutes: u64,
    hours: u64,
    days: Days,
    months: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Days {
    of_month: u64,
    of_week: u64,
    /// A day must be in both sets, because a star stands in one of them; else one of them is enough.
    both: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    Fields(Vec<String>),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}: {1}")]
    Duration(String, duration::Error),
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {quoted}: {why}", quoted = quote(.0), why = .1)]
    Number(String, &'static str),
    #[error("negative number ({0}) not allowed: {1}")]
    Negative(i64, String),
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(i64, u32, String),
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Reversed(i64, i64, String),
    #[error("step of range should be a positive number: {0}")]
    Step(String),
}

struct Bounds {
    first: u32,
    last: u32,
    /// In order, from the first value on.
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { first: 0, last: 59, names: &[] };
const HOURS: Bounds = Bounds { first: 0, last: 23, names: &[] };
const DAYS_OF_MONTH: Bounds = Bounds { first: 1, last: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is no Sunday here.
const DAYS_OF_WEEK: Bounds =
    Bounds { first: 0, last: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The values of one field, and whether a star is among what it lists.
struct Field {
    set: u64,
    star: bool,
}

impl Schedule {
    /// # Errors
    /// Upstream's words for what is wrong. A time zone in front (`TZ=UTC 0 0 * * *`) is no part of a schedule:
    /// [`without_zone`].
    pub fn parse(text: &str) -> Result<Schedule, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minutes, hours, of_month, months, of_week] = fields.as_slice() else {
            return Err(Error::Fields(fields.into_iter().map(str::to_owned).collect()));
        };
        let minutes = field(minutes, &MINUTES)?.set;
        let hours = field(hours, &HOURS)?.set;
        let of_month = field(of_month, &DAYS_OF_MONTH)?;
        let months = field(months, &MONTHS)?.set;
        let of_week = field(of_week, &DAYS_OF_WEEK)?;
        let both = of_month.star || of_week.star;
        let days = Days { of_month: of_month.set, of_week: of_week.set, both };
        Ok(Schedule::At(Times { minutes, hours, days, months }))
    }
}

/// What follows a time zone in front, if there is one: Kubernetes refuses the zone there, and still reads the rest.
pub fn without_zone(text: &str) -> &str {
    let has_zone = text.starts_with("TZ=") || text.starts_with("CRON_TZ=");
    match text.split_once(' ') {
        Some((_, rest)) if has_zone => rest.trim(),
        _ => text,
    }
}

fn descriptor(text: &str) -> Result<Schedule, Error> {
    let spelled_out = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(length) = text.strip_prefix("@every ") else {
                return Err(Error::Descriptor(text.to_owned()));
            };
            let nanos = duration::parse(length).map_err(|error| Error::Duration(text.to_owned(), error))?;
            return Ok(Schedule::Every((nanos / 1_000_000_000).max(1)));
        }
    };
    Schedule::parse(spelled_out)
}

/// A list of ranges. Empty parts of it are passed over.
fn field(text: &str, bounds: &Bounds) -> Result<Field, Error> {
    let mut all = Field { set: 0, star: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, bounds)?;
        all.set |= one.set;
        all.star |= one.star;
    }
    Ok(all)
}

/// `*`, `?`, `5`, `1-5`, `*/2`, `1-5/2`, or `5/10`, which goes on to the last value there is.
fn range(text: &str, bounds: &Bounds) -> Result<Field, Error> {
    let (ends, steps) = match text.split('/').collect::<Vec<_>>()[..] {
        [ends] => (ends, None),
        [ends, step] => (ends, Some(step)),
        _ => (text.split('/').next().unwrap_or_default(), None),
    };
    let parts: Vec<&str> = ends.split('-').collect();
    let mut star = matches!(parts[0], "*" | "?");
    let (start, mut end) = match parts[..] {
        _ if star => (i64::from(bounds.first), i64::from(bounds.last)),
        [one] => {
            let value = value(one, bounds)?;
            (value, value)
        }
        [first, last] => (value(first, bounds)?, value(last, bounds)?),
        _ => {
            value(parts[0], bounds)?;
            return Err(Error::Hyphens(text.to_owned()));
        }
    };
    if text.split('/').count() > 2 {
        return Err(Error::Slashes(text.to_owned()));
    }
    let mut step = 1;
    if let Some(given) = steps {
        step = number(given)?;
        if parts.len() == 1 {
            end = i64::from(bounds.last);
        }
        // `*/2` chooses: it is no star that leaves the choice to the other field of days.
        star &= step <= 1;
    }
    let whole = || text.to_owned();
    if start < i64::from(bounds.first) {
        // It is zero then: a number is never negative here.
        return Err(Error::Below(start as u32, bounds.first, whole()));
    }
    if end > i64::from(bounds.last) {
        return Err(Error::Above(end, bounds.last, whole()));
    }
    if start > end {
        return Err(Error::Reversed(start, end, whole()));
    }
    if step == 0 {
        return Err(Error::Step(whole()));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let set = (start..=end).step_by(step).fold(0, |set, value| set | 1 << value);
    Ok(Field { set, star })
}

fn value(text: &str, bounds: &Bounds) -> Result<i64, Error> {
    match bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Ok(i64::from(bounds.first) + at as i64),
        None => number(text),
    }
}

/// As Go's `strconv.Atoi` reads it.
fn number(text: &str) -> Result<i64, Error> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Number(text.to_owned(), "invalid syntax"));
    }
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(Error::Negative(number, text.to_owned())),
        Ok(number) => Ok(number),
        Err(_) => Err(Error::Number(text.to_owned(), "value out of range")),
    }
}
