//! A bounded queue and a thread between the program and a stream that may stall or break.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How many entries may wait for the stream.
pub const QUEUE_ENTRIES_MAX: usize = 4_096;
/// How many bytes may wait for the stream; an entry larger than this waits alone.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;
/// How often a stream is tried again that was set to non-blocking by somebody else and is full.
const FULL_PIPE_RETRY: Duration = Duration::from_millis(20);

/// A way out for text: a bounded queue, emptied by a thread of its own.
///
/// [`write`](Self::write) never blocks on the stream and never fails: what finds the queue full, or what the stream
/// refuses, is [counted as lost](Self::lost). Clones share the queue; when the last one is dropped, the thread writes
/// out what is queued and ends.
#[derive(Debug, Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

impl Outlet {
    /// An outlet to standard error.
    pub fn stderr() -> io::Result<Self> {
        Self::start("log", duplicate(io::stderr().as_fd())?)
    }

    /// An outlet to standard output.
    pub fn stdout() -> io::Result<Self> {
        Self::start("stdout", duplicate(io::stdout().as_fd())?)
    }

    /// An outlet to any stream, written by a thread of the given name. Fails if no thread can be had.
    pub fn start(thread_name: &str, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::Builder::new().name(thread_name.to_owned()).spawn(move || writer.drain_into(sink))?;
        Ok(Self { _closer: Arc::new(Closer(Arc::clone(&shared))), shared })
    }

    /// Queues one entry: a log line, a summary, whole lines in any case. Lost, and counted, when the queue is full.
    pub fn write(&self, text: impl Into<String>) {
        self.shared.push(text.into().into_bytes());
    }

    /// How many entries were lost so far, to a full queue or to a failed write.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything queued before this call was written or lost, at most for `patience`.
    /// Returns whether it was.
    pub fn flush(&self, patience: Duration) -> bool {
        let queue = self.shared.lock();
        let goal = queue.pushed;
        let (queue, _) = self
            .shared
            .settled
            .wait_timeout_while(queue, patience, |queue| queue.settled < goal)
            .unwrap_or_else(PoisonError::into_inner);
        queue.settled >= goal
    }
}

/// A descriptor of our own for a standard stream: no lock shared with `eprintln!` that a stalled write would hold,
/// no buffer that keeps a line back.
fn duplicate(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// One formatted event on its way into an outlet.
#[derive(Debug)]
pub struct Entry<'a>(&'a Outlet);

impl Write for Entry<'_> {
    /// Takes the whole buffer as one entry: the subscriber formats an event completely before it writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.shared.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry(self)
    }
}

/// Tells the writer thread, when the last handle goes, that nothing more will come.
#[derive(Debug)]
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    settled: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Entries ever queued.
    pushed: u64,
    /// Entries ever written or given up: an entry in the writer's hands is neither queued nor settled.
    settled: u64,
    closed: bool,
}

impl Shared {
    /// The queue, whatever happened to another holder: it is consistent between any two statements under the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Vec<u8>) {
        let mut queue = self.lock();
        // The summary of a large fleet is larger than the whole queue, and is not to be lost for that.
        let crowded = !queue.entries.is_empty() && queue.bytes.saturating_add(entry.len()) > QUEUE_BYTES_MAX;
        let full = queue.entries.len() >= QUEUE_ENTRIES_MAX || crowded;
        if full {
            drop(queue);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += entry.len();
        queue.pushed += 1;
        queue.entries.push_back(entry);
        drop(queue);
        self.filled.notify_one();
    }

    /// The next entry; waits for one, and ends with `None` once the outlet is closed and empty.
    fn pop(&self) -> Option<Vec<u8>> {
        let queue = self.lock();
        let mut queue = self
            .filled
            .wait_while(queue, |queue| queue.entries.is_empty() && !queue.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let entry = queue.entries.pop_front()?;
        queue.bytes -= entry.len();
        Some(entry)
    }

    fn drain_into(&self, mut sink: impl Write) {
        while let Some(entry) = self.pop() {
            // A stream that failed once is tried again with every entry: a full disk can empty, and EPIPE is cheap.
            if write_whole(&mut sink, &entry).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.lock().settled += 1;
            self.settled.notify_all();
        }
    }
}

/// Writes all of `entry`. A full pipe is waited for also when it is non-blocking (whoever started us may share it and
/// have set that), because the loss belongs to the queue, which counts it.
fn write_whole(sink: &mut impl Write, mut entry: &[u8]) -> io::Result<()> {
    while !entry.is_empty() {
        match sink.write(entry) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => entry = &entry[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_RETRY),
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Long enough for any machine; never waited for when the code is right.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_written_comes_out_in_order_and_a_drop_loses_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let other = outlet.clone();
        outlet.write("one\n");
        other.write(String::from("two\n"));
        drop(outlet);
        other.write("three\n");
        drop(other);
        let mut text = String::new();
        // The end of the file arrives only because the writer thread ended and closed its end.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\nthree\n");
    }

    #[test]
    fn flush_waits_until_the_text_is_out() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        outlet.write("line\n");
        assert!(outlet.flush(PATIENCE));
        let mut text = [0; 5];
        reader.read_exact(&mut text).unwrap();
        assert_eq!((&text, outlet.lost()), (b"line\n", 0));
    }

    #[test]
    fn a_closed_pipe_loses_and_counts_every_line() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outlet = Outlet::start("test", writer).unwrap();
        for _ in 0..100 {
            outlet.write("line\n");
        }
        assert!(outlet.flush(PATIENCE));
        assert_eq!(outlet.lost(), 100);
    }

    #[test]
    fn a_full_pipe_stalls_nobody_and_the_overflow_is_counted_to_the_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        // More than pipe and queue can hold, and nobody reads: a blocking write would hang this test for ever.
        let line = format!("{}\n", "x".repeat(1023));
        let sent = 3 * QUEUE_BYTES_MAX / line.len();
        for _ in 0..sent {
            outlet.write(line.as_str());
        }
        let lost = outlet.lost();
        assert!(lost > 0);
        assert!(!outlet.flush(Duration::ZERO));
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, (sent as u64 - lost) * line.len() as u64);
    }

    #[test]
    fn an_entry_larger_than_the_queue_is_not_lost_but_nothing_waits_behind_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        let large = "x".repeat(5 * QUEUE_BYTES_MAX);
        // The first is soon in the writer's hands, the second fills the queue.
        outlet.write(large.as_str());
        while !outlet.shared.lock().entries.is_empty() {
            thread::yield_now();
        }
        outlet.write(large.as_str());
        assert_eq!(outlet.lost(), 0);
        outlet.write("\n");
        assert_eq!(outlet.lost(), 1);
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 2 * large.len());
    }

    #[test]
    fn the_queue_is_bounded_in_entries_too() {
        let (reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", writer).unwrap();
        // One entry larger than a pipe keeps the writer busy; tiny ones pile up behind it.
        outlet.write("x".repeat(QUEUE_BYTES_MAX));
        while !outlet.shared.lock().entries.is_empty() {
            thread::yield_now();
        }
        for _ in 0..QUEUE_ENTRIES_MAX + 7 {
            outlet.write("\n");
        }
        assert_eq!(outlet.lost(), 7);
        drop(reader);
        assert!(outlet.flush(PATIENCE));
        assert_eq!(outlet.lost(), 7 + 1 + QUEUE_ENTRIES_MAX as u64);
    }

    #[test]
    fn a_full_device_is_a_counted_loss_and_no_end() {
        let outlet = Outlet::start("test", File::options().write(true).open("/dev/full").unwrap()).unwrap();
        outlet.write("one\n");
        outlet.write("two\n");
        assert!(outlet.flush(PATIENCE));
        assert_eq!(outlet.lost(), 2);
    }

    #[test]
    fn a_non_blocking_pipe_that_is_full_loses_nothing_that_was_queued() {
        /// Says "would block" at every other call, and takes one byte at the calls between.
        struct Hesitant(io::PipeWriter, bool);
        impl Write for Hesitant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.write(&bytes[..1]) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::start("test", Hesitant(writer, false)).unwrap();
        outlet.write("slow\n");
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "slow\n");
    }
}
