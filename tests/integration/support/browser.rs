//! A real browser without a screen, told what to do by the `DevTools` protocol.
//!
//! Chromium reads commands from descriptor 3 and answers on descriptor 4 (`--remote-debugging-pipe`): JSON texts with a
//! zero byte behind each. A shell puts our ends of two pipes there. Commands go to one page; whatever it complains of
//! (errors of scripts, violations of its policy, files that are not there) is kept.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Process;
use super::wait_for;

/// How long an answer may take: far above what it does take, also on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Puts the pipes where the browser looks for them.
const PLACE_PIPES: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >&2";

/// A page in a browser of its own.
pub(crate) struct Browser {
    commands: PipeWriter,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    complaints: Vec<String>,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Opens `url` in a window of this size.
    pub(crate) fn open(url: &str, (width, height): (u32, u32)) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let (theirs_in, commands) = std::io::pipe().expect("a pipe");
        let (answers, theirs_out) = std::io::pipe().expect("a pipe");
        let mut command = Command::new("sh");
        command.args(["-c", PLACE_PIPES, "sh", "chromium", "--headless=new", "--remote-debugging-pipe"]);
        // Tests run as root, and in places without the user namespaces that the sandbox is made of.
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.env("HOME", profile.path()).stdin(theirs_in).stdout(theirs_out).stderr(Stdio::piped());
        let process = Process::start("chromium", &mut command);
        // Our copies of its ends: without them, its end is the end of the stream.
        drop(command);
        let mut browser = Self {
            commands,
            messages: follow(answers),
            session: String::new(),
            last_id: 0,
            complaints: Vec::new(),
            _process: process,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.resize((width, height), false);
        browser.navigate(url);
        browser
    }

    /// Goes to another address.
    pub(crate) fn navigate(&mut self, url: &str) {
        let went = self.call("Page.navigate", &json!({ "url": url }));
        assert_eq!(went.get("errorText"), None, "{url} does not open");
        self.wait("the page is loaded", "document.readyState === 'complete'");
    }

    /// Gives the window another size, that of a phone or not.
    pub(crate) fn resize(&mut self, (width, height): (u32, u32), phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Prefers light or dark from now on.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The value of an expression in the page; a promise is waited for.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let how = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &how);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// The value of an expression that is a text.
    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.evaluate(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, expression: &str) {
        wait_for(what, PATIENCE, || match self.evaluate(expression) {
            Value::Bool(true) => Ok(()),
            other => Err(format!("{other}\n{}", self.evaluate("document.body?.innerText"))),
        });
    }

    /// Presses a key and lets it go.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            " " => ("Space", 32, " "),
            "ArrowRight" => ("ArrowRight", 39, ""),
            "ArrowLeft" => ("ArrowLeft", 37, ""),
            other => panic!("no such key here: {other}"),
        };
        let mut event = json!({ "type": "keyDown", "key": key, "code": code, "windowsVirtualKeyCode": number });
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", &event);
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", &event);
    }

    /// Presses Tab until an expression is true: until something has the focus.
    #[track_caller]
    pub(crate) fn tab_to(&mut self, expression: &str) {
        for _ in 0..200 {
            if self.evaluate(expression) == json!(true) {
                return;
            }
            self.press("Tab");
        }
        panic!("the keyboard does not get to where {expression}");
    }

    /// Types a text where the focus is.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// What a screen reader is told: role, name and properties of every node that it is told of.
    pub(crate) fn accessible(&mut self) -> Vec<Value> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().expect("nodes").iter();
        nodes.filter(|node| node["ignored"] == json!(false)).cloned().collect()
    }

    /// The page as a picture, in the PNG format.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        base64(picture["data"].as_str().expect("a picture"))
    }

    /// What the page has complained of so far.
    pub(crate) fn complaints(&mut self) -> &[String] {
        // Whatever was on its way has arrived once something newer has.
        self.evaluate("1");
        &self.complaints
    }

    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let text = format!("{message}\0");
        self.commands.write_all(text.as_bytes()).expect("a browser that listens");
        loop {
            let message = self.messages.recv_timeout(PATIENCE);
            let message = message.unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            if message["id"] == json!(self.last_id) {
                assert_eq!(message.get("error"), None, "{method} {params}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &event["params"]["exceptionDetails"],
            Some("Log.entryAdded") => &event["params"]["entry"],
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }
}

/// Reads messages on a thread of its own, to their end.
fn follow(answers: PipeReader) -> Receiver<Value> {
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for text in BufReader::new(answers).split(0) {
            let Ok(message) = text.map(|text| serde_json::from_slice(&text)) else { break };
            // The test may be over.
            if sender.send(message.expect("JSON")).is_err() {
                break;
            }
        }
    });
    messages
}

/// Bytes that were written as RFC 4648 has them.
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for letter in text.bytes().filter(|&letter| letter != b'=') {
        bits = bits << 6 | u32::from(value(letter));
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
