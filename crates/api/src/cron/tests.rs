//! Schedules: what is read, what is refused in which words, and when they run; each expectation as robfig's v3.0.1 has it.

use proptest::prelude::*;

use super::*;
use crate::time::{Instant, Precision};

/// A zone: seconds east of Greenwich, and from which moment on.
type Changes = &'static [(&'static str, i64)];

const UTC: Changes = &[];
const NEW_YORK: Changes = &[
    ("2025-11-02T06:00:00Z", -5 * 3600),
    ("2026-03-08T07:00:00Z", -4 * 3600),
    ("2026-11-01T06:00:00Z", -5 * 3600),
    ("2027-03-14T07:00:00Z", -4 * 3600),
];
const BERLIN: Changes = &[
    ("2025-10-26T01:00:00Z", 3600),
    ("2026-03-29T01:00:00Z", 7200),
    ("2026-10-25T01:00:00Z", 3600),
    ("2027-03-28T01:00:00Z", 7200),
];
/// Its clocks go from Saturday, 23:59 to Sunday, 1:00.
const SAO_PAULO: Changes = &[("2018-02-18T02:00:00Z", -3 * 3600), ("2018-11-04T03:00:00Z", -2 * 3600)];
const BEIRUT: Changes = &[("2024-10-26T21:00:00Z", 7200), ("2025-03-29T22:00:00Z", 3 * 3600)];
/// Sunday's first hour comes twice.
const HAVANA: Changes = &[("2026-03-08T05:00:00Z", -4 * 3600), ("2026-11-01T05:00:00Z", -5 * 3600)];
/// Half an hour: from 2:00 to 2:30.
const LORD_HOWE: Changes = &[("2026-04-04T15:00:00Z", 37_800), ("2026-10-03T15:30:00Z", 39_600)];
const KOLKATA: Changes = &[("1970-01-01T00:00:00Z", 19_800)];

fn seconds(text: &str) -> i64 {
    let text = if text.len() == 16 { format!("{text}:00Z") } else { text.to_owned() };
    let instant = Instant::parse(&text).expect("a moment");
    instant.seconds()
}

fn offset(zone: &[(i64, i64)], at: i64) -> i64 {
    zone.iter().rev().find(|(since, _)| *since <= at).map_or(0, |(_, offset)| *offset)
}

fn read(zone: Changes) -> Vec<(i64, i64)> {
    zone.iter().map(|(since, offset)| (seconds(since), *offset)).collect()
}

/// The next runs as the clocks of the zone show them.
fn runs(schedule: &str, zone: Changes, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).expect("a schedule"), read(zone));
    let mut at = seconds(after);
    let mut all = Vec::new();
    while all.len() < count
        && let Some(next) = schedule.next(at, |at| offset(&zone, at))
    {
        assert!(next > at);
        let shown = Instant::new(next + offset(&zone, next), 0).expect("a moment").print(Precision::Seconds);
        all.push(shown.trim_end_matches(":00Z").replace('T', " "));
        at = next;
    }
    all
}

#[test]
fn when_a_schedule_runs() {
    for (schedule, zone, after, want) in [
        ("* * * * *", UTC, "2026-01-01T00:00", &["2026-01-01 00:01", "2026-01-01 00:02"][..]),
        ("*/15 * * * *", UTC, "2026-01-01T00:14:59Z", &["2026-01-01 00:15", "2026-01-01 00:30"]),
        (
            "5/20 * * * *",
            UTC,
            "2026-01-01T00:00",
            &["2026-01-01 00:05", "2026-01-01 00:25", "2026-01-01 00:45"],
        ),
        ("*/90 * * * *", UTC, "2026-01-01T00:00", &["2026-01-01 01:00", "2026-01-01 02:00"]),
        ("0 9-17/4 * * 1-5", UTC, "2026-01-02T13:00", &["2026-01-02 17:00", "2026-01-05 09:00"]),
        ("0 0 1,,15, * ?", UTC, "2026-01-01T00:00", &["2026-01-15 00:00", "2026-02-01 00:00"]),
        ("? ? ? ? ?", UTC, "2026-01-01T00:00", &["2026-01-01 00:01"]),
        ("30 6 * FEB-mar Sat", UTC, "2026-01-01T00:00", &["2026-02-07 06:30", "2026-02-14 06:30"]),
        ("0 0 29 2 *", UTC, "2026-01-01T00:00", &["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("59 23 31 2 *", UTC, "2026-01-01T00:00", &[]),
        (", * * * *", UTC, "2026-01-01T00:00", &[]),
        // Both days are chosen: one is enough. A star in one: both have to be.
        ("0 0 13 * 5", UTC, "2026-02-01T00:00", &["2026-02-06 00:00", "2026-02-13 00:00"]),
        ("0 0 */2 * 1", UTC, "2026-02-01T00:00", &["2026-02-02 00:00", "2026-02-03 00:00"]),
        ("0 0 5,* * 1", UTC, "2026-02-01T00:00", &["2026-02-02 00:00", "2026-02-09 00:00"]),
        ("0 0 */1 * 1", UTC, "2026-02-01T00:00", &["2026-02-02 00:00", "2026-02-09 00:00"]),
        ("@yearly", UTC, "2026-01-01T00:00", &["2027-01-01 00:00"]),
        ("@monthly", UTC, "2026-01-01T00:00", &["2026-02-01 00:00"]),
        ("@weekly", UTC, "2026-01-01T00:00", &["2026-01-04 00:00"]),
        ("@midnight", UTC, "2026-01-01T00:00", &["2026-01-02 00:00"]),
        ("@hourly", KOLKATA, "2026-01-01T00:00", &["2026-01-01 06:00", "2026-01-01 07:00"]),
        ("@every 90m", UTC, "2026-01-01T00:00", &["2026-01-01 01:30", "2026-01-01 03:00"]),
        ("@every 1500ms", UTC, "2026-01-01T00:00", &["2026-01-01T00:00:01Z"]),
        ("@every -1h", UTC, "2026-01-01T00:00", &["2026-01-01T00:00:01Z"]),
    ] {
        let want: Vec<String> = want.iter().map(|w| w.trim_end_matches('Z').replace('T', " ")).collect();
        let got: Vec<String> = runs(schedule, zone, after, want.len().max(1))
            .iter()
            .map(|g| g.trim_end_matches('Z').to_owned())
            .collect();
        assert_eq!(got, want, "{schedule}");
    }
}

#[test]
fn what_happens_when_a_clock_is_put_forward_or_back() {
    for (schedule, zone, after, want) in [
        // From 1:59 to 3:00: what would run in between does not, that day.
        ("30 2 * * *", NEW_YORK, "2026-03-07T17:00", &["2026-03-09 02:30"][..]),
        (
            "30 * * * *",
            NEW_YORK,
            "2026-03-08T05:45",
            &["2026-03-08 01:30", "2026-03-08 03:30", "2026-03-08 04:30"],
        ),
        ("* * * * *", NEW_YORK, "2026-03-08T06:58", &["2026-03-08 01:59", "2026-03-08 03:00"]),
        ("0 3 * * *", BERLIN, "2026-03-28T12:00", &["2026-03-29 03:00", "2026-03-30 03:00"]),
        // An hour that comes twice runs twice.
        (
            "30 1 * * *",
            NEW_YORK,
            "2026-10-31T16:00",
            &["2026-11-01 01:30", "2026-11-01 01:30", "2026-11-02 01:30"],
        ),
        (
            "0 2 * * *",
            BERLIN,
            "2026-10-24T12:00",
            &["2026-10-25 02:00", "2026-10-25 02:00", "2026-10-26 02:00"],
        ),
        (
            "0 0 * * *",
            HAVANA,
            "2026-10-31T16:00",
            &["2026-11-01 00:00", "2026-11-01 00:00", "2026-11-02 00:00"],
        ),
        // A Sunday without a midnight.
        ("0 0 * * 0", SAO_PAULO, "2018-10-29T15:00", &["2018-11-11 00:00"]),
        ("0 1 * * 0", SAO_PAULO, "2018-10-29T15:00", &["2018-11-04 01:00"]),
        // East of Greenwich the search steps over such a day whole.
        ("0 12 30 3 *", BEIRUT, "2025-03-01T00:00", &["2026-03-30 12:00"]),
        ("0 12 * * *", BEIRUT, "2025-03-29T00:00", &["2025-03-29 12:00", "2025-03-30 12:00"]),
        // Hours are counted from 2:30 on, so 3:00 is missed; nothing of 3:30 is.
        ("0 3 * * *", LORD_HOWE, "2026-10-03T02:00", &["2026-10-05 03:00"]),
        ("30 3 * * *", LORD_HOWE, "2026-10-03T02:00", &["2026-10-04 03:30"]),
        // Real time, whatever the clocks show.
        ("@every 1h", NEW_YORK, "2026-03-08T06:30", &["2026-03-08 03:30"]),
    ] {
        assert_eq!(runs(schedule, zone, after, want.len()), want, "{schedule}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_in_robfigs_words() {
    for (text, want) in [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("0 0 0 * * *", "expected exactly 5 fields, found 6: [0 0 0 * * *]"),
        ("error", "expected exactly 5 fields, found 1: [error]"),
        (" @daily", "expected exactly 5 fields, found 1: [@daily]"),
        ("@reboot", "unrecognized descriptor: @reboot"),
        ("@DAILY", "unrecognized descriptor: @DAILY"),
        ("@daily ", "unrecognized descriptor: @daily "),
        ("@every1h", "unrecognized descriptor: @every1h"),
        ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
        ("@every 1d", "failed to parse duration @every 1d: time: unknown unit \"d\" in duration \"1d\""),
        ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ("@every ", "failed to parse duration @every : time: invalid duration \"\""),
        ("@every .s", "failed to parse duration @every .s: time: invalid duration \".s\""),
        ("@every 9999999h", "failed to parse duration @every 9999999h: time: invalid duration \"9999999h\""),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * 13 *", "end of range (13) above maximum (12): 13"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("* * * * SAT-SUN", "beginning of range (6) beyond end of range (0): SAT-SUN"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("- * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
        (
            "* * * january *",
            "failed to parse int from january: strconv.Atoi: parsing \"january\": invalid syntax",
        ),
        (
            "99999999999999999999 * * * *",
            "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
        ),
    ] {
        assert_eq!(Schedule::parse(text).unwrap_err().to_string(), want, "{text:?}");
    }
    assert_eq!(without_zone("TZ=Europe/Berlin  0 0 * * *"), "0 0 * * *");
    assert_eq!(without_zone("CRON_TZ=UTC @daily"), "@daily");
    assert_eq!(without_zone("TZ=UTC"), "TZ=UTC");
}

#[test]
fn lengths_of_time_are_read_as_go_reads_them() {
    for (text, want) in [
        ("0", 0),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5h", 1_800_000_000_000),
        ("-2ms3us4ns", -2_003_004),
        ("+1\u{b5}s", 1_000),
        ("9223372036854775807ns", i64::MAX),
        ("-9223372036854775808ns", i64::MIN),
    ] {
        assert_eq!(duration::parse(text), Ok(want), "{text}");
    }
}

/// The first minute after `after` whose clock shows what the schedule asks for.
fn naive(text: &str, after: i64, zone: &[(i64, i64)]) -> Option<i64> {
    let fields: Vec<&str> = text.split(' ').collect();
    let holds = |field: &str, value: i64, first: i64, last: i64| {
        field.split(',').any(|part| {
            let (ends, step) = part.split_once('/').unwrap_or((part, "1"));
            let step: i64 = step.parse().unwrap();
            let (low, high) = match ends.split_once('-') {
                _ if ends == "*" => (first, last),
                Some((low, high)) => (low.parse().unwrap(), high.parse().unwrap()),
                None => (ends.parse().unwrap(), if part == ends { ends.parse().unwrap() } else { last }),
            };
            (low..=high).contains(&value) && (value - low) % step == 0
        })
    };
    let star = |field: &str| field.split(',').any(|part| part == "*" || part == "*/1");
    (after.div_euclid(60) + 1..after.div_euclid(60) + 60 * 24 * 150).map(|minute| minute * 60).find(|at| {
        let local = at + offset(zone, *at);
        let (_, month, day) = crate::time::civil_from_days(local.div_euclid(86_400));
        let of_month = holds(fields[2], day, 1, 31);
        let of_week = holds(fields[4], (local.div_euclid(86_400) + 4).rem_euclid(7), 0, 6);
        let day = if star(fields[2]) || star(fields[4]) { of_month && of_week } else { of_month || of_week };
        day && holds(fields[0], local / 60 % 60, 0, 59)
            && holds(fields[1], local / 3600 % 24, 0, 23)
            && holds(fields[3], month, 1, 12)
    })
}

fn part(first: u32, last: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("*".to_owned()),
        1 => (1..=last).prop_map(|step| format!("*/{step}")),
        3 => (first..=last).prop_map(|value| value.to_string()),
        1 => (first..=last, 1..=last).prop_map(|(value, step)| format!("{value}/{step}")),
        2 => (first..=last, first..=last).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (first..=last, first..=last, 1..=last).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
    ]
}

fn any_field(first: u32, last: u32) -> impl Strategy<Value = String> {
    prop::collection::vec(part(first, last), 1..3).prop_map(|parts| parts.join(","))
}

fn any_schedule() -> impl Strategy<Value = String> {
    (any_field(0, 59), any_field(0, 23), any_field(1, 31), any_field(1, 12), any_field(0, 6))
        .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Where changes of the clock are whole hours and leave midnight alone, the steps lead to where a search of each
    /// minute leads.
    #[test]
    fn the_next_run_is_the_first_minute_that_fits(
        schedule in any_schedule(),
        zone in prop::sample::select(vec![UTC, NEW_YORK, BERLIN, KOLKATA]),
        day in 0i64..300,
        second in 0i64..86_400,
    ) {
        let zone = read(zone);
        let after = seconds("2026-01-05T00:00") + day * 86_400 + second;
        let naive = naive(&schedule, after, &zone);
        let next = Schedule::parse(&schedule).unwrap().next(after, |at| offset(&zone, at));
        let within_reach = |at: &i64| *at < after + 149 * 86_400;
        prop_assert_eq!(next.filter(within_reach), naive.filter(within_reach), "{}", schedule);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-@*?/,0-9a-z ]{0,24}", any in ".{0,20}", after in any::<i64>()) {
        for text in [text, any] {
            if let Ok(schedule) = Schedule::parse(&text) {
                let _ = schedule.next(after / 1_000_000_000, |_| 3600);
            }
        }
    }
}
