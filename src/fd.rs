//! Descriptors that a runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for the descriptor to become readable. Called inside a runtime.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, whose descriptor stays open while it lives; the replacement is an unsafe fn, which \
                  this crate forbids"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}
