//! The user's terminal in raw mode while a command runs in a pod, and its size.

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` where standard input is no terminal.
    pub fn enter() -> Result<Option<Raw>> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("tcgetattr of standard input")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("tcsetattr of standard input")?;
        Ok(Some(Raw { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs no restoring; there is nobody left to tell.
        if let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before) {
            eprintln!("restore the terminal: tcsetattr: {error}");
        }
    }
}

/// Columns and rows; `None` where standard output is no terminal.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
