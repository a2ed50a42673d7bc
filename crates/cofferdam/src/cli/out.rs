//! Standard output and standard error of the commands. Whoever reads them may go away (`| head`): then a command ends quietly,
//! as one that SIGPIPE ends would. (The signal itself stays ignored: it would also end a command whose API server goes away.)

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// What a shell shows for a program that SIGPIPE has ended (128 + 13).
pub const NOBODY_READS: u8 = 141;

static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// A stream of the command's whose reader may go away.
pub struct Out<W>(W);

/// Standard output, which this thread alone writes meanwhile.
pub fn stdout() -> Out<io::StdoutLock<'static>> {
    Out(io::stdout().lock())
}

/// Standard error, likewise.
pub fn stderr() -> Out<io::StderrLock<'static>> {
    Out(io::stderr().lock())
}

/// Whether to colour what goes to standard output.
pub fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether a write has failed because nobody reads any more: nothing is to be said to anybody then.
pub fn reader_is_gone() -> bool {
    READER_IS_GONE.load(Ordering::Relaxed)
}

/// Says on standard error what went wrong, if anybody listens.
pub fn complain(text: impl fmt::Display) {
    if !reader_is_gone() {
        // There is nowhere to say that this failed.
        drop(writeln!(stderr(), "{text}"));
    }
}

fn note<T>(done: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &done
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        READER_IS_GONE.store(true, Ordering::Relaxed);
    }
    done
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note(self.0.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        note(self.0.flush())
    }
}
