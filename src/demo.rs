//! What `hammerd demo` needs besides the daemon itself: a server to strike, and a configuration that does.

mod origin;

use std::net::SocketAddr;

pub use origin::Origin;

/// A configuration with a target for each side of the origin.
pub fn config(origin: SocketAddr) -> String {
    format!(
        r#"
[shutdown]
linger = "0s"

[targets.fast]
url = "http://{origin}/fast"
rate = "100/s"

[targets.slow]
url = "http://{origin}/slow"
rate = "20/s"

[targets.flaky]
url = "http://{origin}/flaky"
rate = "50/s"

[targets.echo]
url = "http://{origin}/echo"
rate = "5/s"
method = "POST"
body = "hello"

[targets.nobody-there]
url = "http://127.0.0.1:9/"
rate = "1/s"
"#
    )
}

/// What to look at.
pub fn welcome(listen: SocketAddr, origin: SocketAddr) -> String {
    format!(
        "hammerd demo: steady traffic on a built-in server at http://{origin}\n\
         \n\
         \x20 http://{listen}/          what there is to see\n\
         \x20 http://{listen}/metrics   what Prometheus scrapes\n\
         \x20 http://{listen}/config    the configuration that runs\n\
         \n\
         Ctrl-C drains and prints a summary.\n\n"
    )
}
