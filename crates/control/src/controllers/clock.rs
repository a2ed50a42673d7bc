//! What time it is, and waiting until it is another: by the clock on the wall, which people set and laptops sleep through,
//! since that is what schedules are about.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;

    /// What the clocks here are set to.
    fn zone(&self) -> TimeZone;

    /// Done when it is that late.
    fn reached(&self, moment: Timestamp) -> BoxFuture<'_, ()>;
}

/// The machine's.
pub struct Machine;

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// `TZ`, else `/etc/localtime`, else UTC.
    fn zone(&self) -> TimeZone {
        TimeZone::try_system().unwrap_or(TimeZone::UTC)
    }

    fn reached(&self, moment: Timestamp) -> BoxFuture<'_, ()> {
        async move {
            while Timestamp::now() < moment {
                if wait(moment).await.is_err() {
                    // No descriptor is left: then by the clock that stands still while the machine sleeps.
                    let left = moment.duration_since(Timestamp::now());
                    tokio::time::sleep(left.try_into().unwrap_or(Duration::ZERO)).await;
                }
            }
        }
        .boxed()
    }
}

/// By a timer of the kernel's that minds when the clock is set.
#[expect(
    deprecated,
    reason = "what it is deprecated for, a type that lies about its descriptor, an OwnedFd cannot do"
)]
async fn wait(moment: Timestamp) -> std::io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let it_value =
        Timespec { tv_sec: moment.as_second(), tv_nsec: i64::from(moment.subsec_nanosecond().max(0)) };
    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
    let _ = AsyncFd::with_interest(timer, Interest::READABLE)?.readable().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machines_clock_waits_for_a_moment_and_not_for_one_that_is_past() {
        let begin = Timestamp::now();
        let moment = begin + Duration::from_millis(20);
        Machine.reached(moment).await;
        assert!(Timestamp::now() >= moment);
        Machine.reached(begin).await;
        wait(moment).await.expect("a timer of the kernel's");
    }
}
