//! A network of a test's own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{is_root, skip};

/// Runs `test` on a thread in a network namespace of its own, in which only a loopback interface is up and `setup`
/// (lines of `ip`, without the word) has been done. Whatever the test starts lives there too and sees no other
/// network. Without root it is skipped, and says so.
pub(crate) fn in_private_network(name: &str, setup: &[&str], test: impl FnOnce() + Send) {
    if !is_root() {
        return skip(name, "needs root for a network namespace");
    }
    let namespace = new_namespace();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("the namespace");
            for line in setup {
                ip(line);
            }
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs one `ip` command in the network that the calling thread is in.
pub(crate) fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_whitespace()).output().expect("ip from iproute2");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a namespace by a process that holds it until it has been opened here.
fn new_namespace() -> File {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare from util-linux");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("stdout")).read_line(&mut line).expect("a line from the namespace");
    assert_eq!(line.trim(), "up", "the loopback interface of a new namespace");
    let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).expect("the namespace");
    holder.kill().and_then(|()| holder.wait()).expect("the end of the holder");
    namespace
}
