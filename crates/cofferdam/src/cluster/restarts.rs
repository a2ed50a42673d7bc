//! How long a part that has ended waits before it is started again: hardly at all where it ran well, longer each time it
//! ends at once, so that one that cannot run takes neither a core nor the disk.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// What ran for so long was well.
const WELL: Duration = Duration::from_secs(10);

/// The starts of one part.
pub struct Restarts {
    since: Instant,
    pause: Duration,
}

impl Restarts {
    /// It starts now, for the first time.
    pub fn new(now: Instant) -> Restarts {
        Restarts { since: now, pause: FIRST }
    }

    /// It has ended; returns how long to wait.
    pub fn ended(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.since) >= WELL {
            self.pause = FIRST;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        self.since = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_once_waits_longer_each_time_until_it_has_run_well() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(now);
        let table = [
            (0, 200),
            (1, 400),
            (1, 800),
            (1, 1600),
            (1, 3200),
            (1, 6400),
            (1, 10_000),
            (1, 10_000),
            (60, 200),
        ];
        for (ran, pause) in table {
            now += Duration::from_secs(ran);
            let got = restarts.ended(now);
            assert_eq!(got, Duration::from_millis(pause), "after {ran} s");
            now += got;
        }
    }
}
