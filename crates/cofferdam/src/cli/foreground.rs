//! `up --foreground`: stays until Ctrl-C or SIGTERM, whichever service manager or person sends it, then ends the cluster in
//! order.

use anyhow::{Context, Result};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Signals are taken from here on: one that comes while the cluster starts ends it when it has started, and leaves
/// nothing half-made running.
pub struct Foreground {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Foreground {
    pub fn start() -> Result<Foreground> {
        let runtime = super::runtime()?;
        let _inside = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).context("wait for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        drop(_inside);
        Ok(Foreground { runtime, interrupt, terminate })
    }

    pub fn wait(mut self) -> Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        });
        Ok(())
    }
}
