//! A real `nearfar serve` in a state directory of its own, for tests: its
//! address, its processes, its log. Everything ends when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nearfar::supervisor::Role;
use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for what must come. Long, because a busy machine is
/// no failure; nothing is ever timed with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a daemon is started with.
#[derive(Default)]
pub struct DaemonOptions {
    /// The configuration file's text; none for no file.
    pub config: Option<String>,
    /// Variables on top of a nearly empty environment.
    pub env: Vec<(String, String)>,
    /// The state directory; none for a fresh one that goes with the daemon.
    pub state_dir: Option<PathBuf>,
    /// Addresses to listen on; none for one free port of 127.0.0.1.
    pub listen: Vec<String>,
    /// A command that starts the daemon in its turn, such as strace.
    pub wrap: Vec<String>,
}

impl DaemonOptions {
    /// Adds a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the configuration file's text.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }
}

/// A daemon that runs.
pub struct Daemon {
    /// What was started: the supervisor, or the command that wraps it.
    supervisor: Child,
    /// The supervisor's process.
    pid: u32,
    address: SocketAddr,
    state_dir: PathBuf,
    log: Arc<Mutex<String>>,
    /// Holds home, configuration and, unless one was given, the state.
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a daemon and waits until it listens.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start(options: DaemonOptions) -> Self {
        match Self::try_start(options) {
            Ok(daemon) => daemon,
            Err(said) => panic!("the daemon did not start: {said}"),
        }
    }

    /// Starts a daemon that may refuse to: then what it said.
    pub fn try_start(options: DaemonOptions) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("nf").tempdir().unwrap();
        let state_dir = options
            .state_dir
            .unwrap_or_else(|| folder.path().join("state"));
        let mut words = options.wrap.iter().map(String::as_str).collect::<Vec<_>>();
        words.push(env!("CARGO_BIN_EXE_nearfar"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg("serve").arg("--state-dir").arg(&state_dir);
        let listen = match options.listen.as_slice() {
            [] => vec!["127.0.0.1:0".to_owned()],
            said => said.to_vec(),
        };
        for address in listen {
            command.arg("--listen").arg(address);
        }
        if let Some(text) = options.config {
            let path = folder.path().join("nearfar.toml");
            std::fs::write(&path, text).unwrap();
            command.arg("--config").arg(path);
        }
        let mut supervisor = command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", folder.path())
            .env("RUST_BACKTRACE", "1")
            .envs(options.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let logging = capture(supervisor.stderr.take().unwrap(), Arc::clone(&log));
        let mut out = BufReader::new(supervisor.stdout.take().unwrap());
        let mut line = String::new();
        // Ends with the line, or with the process.
        out.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("nearfar listening on http://")
            .and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let status = supervisor.wait().unwrap();
            logging.join().unwrap();
            let log = log.lock().unwrap().clone();
            return Err(format!("{status}: {line}{log}"));
        };
        capture(out.into_inner(), Arc::new(Mutex::new(String::new())));
        let started = supervisor.id();
        let pid = match options.wrap.as_slice() {
            [] => started,
            _ => children(started).first().map_or(started, |(pid, _)| *pid),
        };
        Ok(Self {
            supervisor,
            pid,
            address,
            state_dir,
            log,
            _folder: folder,
        })
    }

    /// Where the data API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The supervisor's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A child's process, where it runs.
    pub fn pid_of(&self, role: Role) -> Option<u32> {
        children(self.pid())
            .into_iter()
            .find(|(_, arguments)| arguments.get(1).is_some_and(|a| a == role.name()))
            .map(|(pid, _)| pid)
    }

    /// Waits for a child that runs, other than `not`.
    pub fn wait_for(&self, role: Role, not: Option<u32>) -> u32 {
        self.until(&format!("a {role}"), || {
            self.pid_of(role).filter(|pid| Some(*pid) != not)
        })
    }

    /// Sends SIGKILL to a child and waits for the next one.
    pub fn kill(&self, role: Role) -> u32 {
        let pid = self.wait_for(role, None);
        signal(pid, Signal::KILL);
        self.wait_for(role, Some(pid))
    }

    /// Everything that went to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log holds these words.
    pub fn wait_for_log(&self, words: &str) {
        self.until(words, || self.log().contains(words).then_some(()));
    }

    /// Waits until all parts are up and a local model is loaded.
    pub fn wait_ready(&self) {
        self.until("readiness", || {
            self.try_get("/readyz")
                .filter(|(status, _)| *status == 200)
                .map(drop)
        });
    }

    /// GET over TCP: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.until(path, || self.try_get(path))
    }

    /// GET over TCP; `None` when the connection fails.
    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        exchange(TcpStream::connect(self.address).ok()?, "GET", path, "")
    }

    /// POST of a JSON body over TCP: status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let connection = TcpStream::connect(self.address).unwrap();
        exchange(connection, "POST", path, body).unwrap()
    }

    /// GET over the control socket: status and body.
    pub fn control(&self, path: &str) -> (u16, String) {
        let socket = self.state_dir.join("control.sock");
        self.until(path, || {
            exchange(UnixStream::connect(&socket).ok()?, "GET", path, "")
        })
    }

    /// Asks for an orderly stop and waits for it.
    pub fn stop(mut self) -> (ExitStatus, String) {
        signal(self.pid(), Signal::TERM);
        let status = self.wait();
        (status, self.log())
    }

    /// Waits for the supervisor's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.supervisor.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "still runs: {}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Polls until there is something.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; the daemon said:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let children = children(self.pid());
        // Already over where the test stopped it. What wraps it ends with it.
        if is_running(self.pid) {
            signal(self.pid, Signal::KILL);
        }
        let _ = self.supervisor.wait();
        // They end by themselves; the folder must not go before they did.
        let deadline = Instant::now() + Duration::from_secs(5);
        for (pid, _) in children {
            while is_running(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process is there and not a zombie.
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The running children of a process, with their arguments.
pub fn children(parent: u32) -> Vec<(u32, Vec<String>)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(state, of)| of == parent && state != 'Z'))
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            Some((pid, line.split('\0').map(str::to_owned).collect()))
        })
        .collect()
}

/// Reads on a thread until the end.
fn capture(
    mut stream: impl Read + Send + 'static,
    into: Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            into.lock().unwrap().push_str(&text);
        }
    })
}

/// One request on a connection of its own: status and body.
fn exchange(
    mut connection: impl Read + Write,
    method: &str,
    path: &str,
    body: &str,
) -> Option<(u16, String)> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).ok()?;
    connection.write_all(body.as_bytes()).ok()?;
    let mut reply = Vec::new();
    connection.read_to_end(&mut reply).ok()?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Some((
        status,
        if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        },
    ))
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        whole.push_str(chunk);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}
