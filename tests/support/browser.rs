//! A headless Chromium, driven over its DevTools protocol through two pipes.
//!
//! `tests/browser/fetch.sh` says where one is, or fetches it. Where none can be had the test is skipped, and
//! says so; with `CI=true` it fails.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take for one thing. Far above what it takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab. Dropped: its process is killed.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    /// Its profile and pipes.
    _dir: TempDir,
}

/// The browser, its libraries, its fonts; `Err`: why there is none.
fn fetch() -> Result<[String; 3], String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/fetch.sh");
    let output = Command::new(script).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    Ok([(); 3].map(|()| lines.next().unwrap_or_default()))
}

impl Browser {
    /// A browser; `None` where there is none, and the test is to be skipped.
    pub fn start() -> Option<Self> {
        // Once for all tests of the process.
        static FOUND: OnceLock<Result<[String; 3], String>> = OnceLock::new();
        let [program, libraries, fonts] = match FOUND.get_or_init(fetch) {
            Ok(found) => found,
            Err(why) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has to have a browser: {why}");
                eprintln!("SKIPPED: the test of the status page in a browser: {why}");
                return None;
            }
        };
        let dir = TempDir::new().unwrap();
        let (to, from) = (dir.path().join("to"), dir.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // The shell gives the browser the descriptors 3 and 4; each end of a pipe waits for the other.
        let script = "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\"";
        let mut command = Command::new("sh");
        if !libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", libraries).env("FONTCONFIG_FILE", fonts);
        }
        let child = command
            .args(["-c", script, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .env("TO", &to)
            .env("FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Opened for both, so that it does not wait for a browser that never comes.
        let to = OpenOptions::new().read(true).write(true).open(to).unwrap();
        let read = OpenOptions::new().read(true).write(true).open(from).unwrap();
        let (said, from) = channel();
        thread::spawn(move || {
            let messages = BufReader::new(read).split(0);
            for message in messages.map_while(Result::ok) {
                if said.send(serde_json::from_slice(&message).unwrap_or(Value::Null)).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, to, from, session: String::new(), next: 0, _dir: dir };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.from.recv_timeout(left).unwrap_or_else(|_| panic!("no answer to {method}"));
            // Something else in between is an event.
            if answer["id"] == json!(self.next) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression of the page's.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(expression) != json!(true) {
            assert!(Instant::now() < deadline, "it did not come about: {expression}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Goes to `url`, and waits until the page is there.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        let there = format!("location.href === {url:?} && document.readyState === 'complete'");
        self.wait(&there);
    }

    /// The size of the window in pixels, and whether the system is set to dark.
    pub fn set(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// A picture of the page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        base64(answer["data"].as_str().unwrap())
    }

    /// Writes a picture to `$SHOTS/NAME.png`, if somebody wants to see it.
    pub fn shot(&mut self, name: &str) {
        let picture = self.picture();
        assert!(picture.starts_with(b"\x89PNG"), "a picture");
        if let Some(dir) = std::env::var_os("SHOTS") {
            fs::create_dir_all(&dir).unwrap();
            fs::write(Path::new(&dir).join(format!("{name}.png")), picture).unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}
