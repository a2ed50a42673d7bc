//! The next moment of a schedule after another, as robfig's `SpecSchedule.Next` finds it. The steps are its own, because
//! what a schedule means where a clock is put forward or back is nothing but where these steps lead: an hour that is left
//! out runs nothing, one that comes twice runs twice, and in a zone whose midnight is left out some days are passed over.

use super::{Days, Schedule, Times};
use crate::time::{civil_from_days, days_from_civil};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// A schedule that asks for 30 February is given up after so many years.
const YEARS: i64 = 5;

impl Schedule {
    /// The first moment after `after`; both are seconds since 1970. `offset`: how far the clocks of the schedule's zone are
    /// ahead of UTC at a moment, in seconds. None: there is none in the next five years.
    pub fn next(&self, after: i64, offset: impl Fn(i64) -> i64) -> Option<i64> {
        match self {
            Schedule::Every(seconds) => after.checked_add(*seconds),
            Schedule::At(times) => times.next(after, &Zone { offset }),
        }
    }
}

struct Zone<F> {
    offset: F,
}

/// What a clock shows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Clock {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// From Sunday on.
    day_of_week: i64,
}

impl<F: Fn(i64) -> i64> Zone<F> {
    fn clock(&self, at: i64) -> Clock {
        let local = at + (self.offset)(at);
        let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        Clock {
            year,
            month,
            day,
            hour: second / HOUR,
            minute: second / MINUTE % 60,
            second: second % 60,
            // 1 January 1970 was a Thursday.
            day_of_week: (days + 4).rem_euclid(7),
        }
    }

    /// When a clock shows this, as Go's `time.Date` decides where it does so never or twice: by the offset in force at the
    /// moment which the first guess leads to. A month or day past its last is one of the next year or month.
    fn moment(&self, year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> i64 {
        let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
        let days = days_from_civil(year, month, 1) + day - 1;
        let local = days * DAY + hour * HOUR + minute * MINUTE + second;
        local - (self.offset)(local - (self.offset)(local))
    }
}

fn has(set: u64, value: i64) -> bool {
    set >> value & 1 == 1
}

impl Days {
    fn have(&self, clock: &Clock) -> bool {
        let (of_month, of_week) = (has(self.of_month, clock.day), has(self.of_week, clock.day_of_week));
        if self.both { of_month && of_week } else { of_month || of_week }
    }
}

impl Times {
    fn next<F: Fn(i64) -> i64>(&self, after: i64, zone: &Zone<F>) -> Option<i64> {
        if [self.minutes, self.hours, self.months].contains(&0) {
            return None;
        }
        let mut at = after.checked_add(1)?;
        let last_year = zone.clock(at).year + YEARS;
        // Whether the smaller parts are at their beginning already.
        let mut begun = false;
        'again: loop {
            let mut now = zone.clock(at);
            if now.year > last_year {
                return None;
            }
            while !has(self.months, now.month) {
                if !begun {
                    begun = true;
                    at = zone.moment(now.year, now.month, 1, 0, 0, 0);
                    now = zone.clock(at);
                }
                at = zone.moment(now.year, now.month + 1, now.day, now.hour, now.minute, now.second);
                now = zone.clock(at);
                if now.month == 1 {
                    continue 'again;
                }
            }
            while !self.days.have(&now) {
                if !begun {
                    begun = true;
                    at = zone.moment(now.year, now.month, now.day, 0, 0, 0);
                    now = zone.clock(at);
                }
                at = zone.moment(now.year, now.month, now.day + 1, now.hour, now.minute, now.second);
                now = zone.clock(at);
                // This day has no midnight.
                if now.hour != 0 {
                    at += if now.hour > 12 { 24 - now.hour } else { -now.hour } * HOUR;
                    now = zone.clock(at);
                }
                if now.day == 1 {
                    continue 'again;
                }
            }
            while !has(self.hours, now.hour) {
                if !begun {
                    begun = true;
                    at = zone.moment(now.year, now.month, now.day, now.hour, 0, 0);
                }
                at += HOUR;
                now = zone.clock(at);
                if now.hour == 0 {
                    continue 'again;
                }
            }
            while !has(self.minutes, now.minute) {
                if !begun {
                    begun = true;
                    at -= at.rem_euclid(MINUTE);
                }
                at += MINUTE;
                now = zone.clock(at);
                if now.minute == 0 {
                    continue 'again;
                }
            }
            while now.second != 0 {
                begun = true;
                at += 1;
                now = zone.clock(at);
                if now.second == 0 {
                    continue 'again;
                }
            }
            return Some(at);
        }
    }
}
