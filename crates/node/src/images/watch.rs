//! Tells when the store's images change, whichever process changed them: inotify on the store's directory, where the
//! index is replaced by rename.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::index::INDEX;

/// See [`super::ImageStore::watch`].
#[derive(Debug)]
pub struct ImageWatch {
    inotify: AsyncFd<OwnedFd>,
}

impl ImageWatch {
    /// Must be called in a tokio runtime. Changes from now on are seen.
    pub(super) fn new(store: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, store, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        Ok(Self { inotify: register(inotify)? })
    }

    /// Waits until the images have changed since the last call. Several changes may come as one.
    ///
    /// # Errors
    /// What reading the inotify descriptor says.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            let mut seen = false;
            loop {
                match reader.next() {
                    // An overflowed queue (no name) has lost events: look again.
                    Ok(event) => {
                        seen |= event.file_name().is_none_or(|name| name.to_bytes() == INDEX.as_bytes());
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}

/// Has the runtime watch a descriptor.
#[expect(
    deprecated,
    reason = "what is unsound of it are types whose descriptor changes, which an OwnedFd's never does; its replacement is \
              unsafe, and only the kernel crate may be that"
)]
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}
