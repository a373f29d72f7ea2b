//! Tells the binary what it was built from.

use std::process::Command;

fn main() {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(&rustc, &["--version"]).and_then(|text| Some(text.split_whitespace().nth(1)?.to_owned()));
    // A build outside a checkout (a package, an image) may name the revision itself.
    let revision = std::env::var("HAMMERD_REVISION").ok().filter(|revision| !revision.is_empty());
    let revision = revision.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=HAMMERD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=HAMMERD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-env-changed=HAMMERD_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
    for file in [".git/HEAD", ".git/refs/heads"] {
        if std::path::Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
}
