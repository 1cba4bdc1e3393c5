//! Real servers from Debian's packages, each in a folder of its own, that tests
//! kill and start again.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::daemon::{children, is_running, signal};
use super::root;

const PATIENCE: Duration = Duration::from_secs(60);

/// The superuser of the test's server.
const OWNER: &str = "owner";
const OWNER_PASSWORD: &str = "only for this test";

/// A Postgres server with TLS, the database `fleet` and the role `nearfar`.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// The password of the role `nearfar`: not one word, so that it is known to
    /// be taken as it is.
    pub const PASSWORD: &'static str = "hush, 'this' is: secret @5";

    /// Makes and starts a server.
    ///
    /// # Panics
    /// Where Debian's `postgresql` is not installed.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, OWNER_PASSWORD).unwrap();
        for name in ["certificate.pem", "key.pem"] {
            let from = root().join("tests/support/tls").join(name);
            std::fs::copy(from, folder.path().join(name)).unwrap();
        }
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if rustix::process::geteuid().is_root() {
            let everything = [folder.path(), &data];
            let files = ["password", "certificate.pem", "key.pem"];
            let files: Vec<PathBuf> = files.iter().map(|name| folder.path().join(name)).collect();
            for path in everything
                .into_iter()
                .chain(files.iter().map(PathBuf::as_path))
            {
                let status = Command::new("chown").arg("postgres").arg(path).status();
                assert!(status.unwrap().success());
            }
        }
        let key = folder.path().join("key.pem");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let mut server = Self {
            folder,
            programs: programs(),
            port: free_port(),
            server: None,
        };
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C", "--username", OWNER])
            .arg(format!("--pwfile={}", password.display()))
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        server.start_again();
        server.query("postgres", "CREATE DATABASE fleet");
        let quoted = Self::PASSWORD.replace('\'', "''");
        server.query(
            "fleet",
            &format!("CREATE ROLE nearfar LOGIN PASSWORD '{quoted}'"),
        );
        server
    }

    /// As Debian's user for it where we are root, whom it refuses.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = match rustix::process::geteuid().is_root() {
            false => Command::new(path),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                command.arg(path);
                command
            }
        };
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        command
    }

    /// Starts it where it was, and waits until it answers.
    pub fn start_again(&mut self) {
        let folder = self.folder.path().display().to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.folder.path().join("data"));
            for setting in [
                format!("port={}", self.port),
                "listen_addresses=127.0.0.1".to_owned(),
                format!("unix_socket_directories={folder}"),
                "ssl=on".to_owned(),
                format!("ssl_cert_file={folder}/certificate.pem"),
                format!("ssl_key_file={folder}/key.pem"),
            ] {
                command.arg("-c").arg(setting);
            }
            let mut server = command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            while server.try_wait().unwrap().is_none() {
                if self.try_query("postgres", "SELECT 1").is_ok() {
                    // Nobody reads on; a full pipe must not stop it.
                    let log = server.stderr.take();
                    std::thread::spawn(move || {
                        let _ = log.map(|mut log| std::io::copy(&mut log, &mut std::io::sink()));
                    });
                    self.server = Some(server);
                    return;
                }
                assert!(Instant::now() < deadline, "Postgres does not answer");
                std::thread::sleep(Duration::from_millis(50));
            }
            // What a killed one left may hold its shared memory for a moment.
            let log = server.wait_with_output().unwrap();
            assert!(
                Instant::now() < deadline,
                "Postgres does not start: {log:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn processes(&self) -> Vec<u32> {
        let Some(server) = &self.server else {
            return Vec::new();
        };
        let pid = server.id();
        let workers = children(pid).into_iter().map(|(pid, _)| pid);
        std::iter::once(pid).chain(workers).collect()
    }

    /// Sends SIGKILL to all of it.
    pub fn kill(&mut self) {
        for pid in self.processes() {
            if is_running(pid) {
                signal(pid, Signal::KILL);
            }
        }
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
    }

    /// Stops all of it where it is: connections stay open and nobody answers.
    pub fn freeze(&self) {
        for pid in self.processes() {
            signal(pid, Signal::STOP);
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The folder of its unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file with the role's password, in a folder that only we may read.
    pub fn password_file(folder: &Path) -> PathBuf {
        let path = folder.join("password");
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o600))
            .unwrap();
        writeln!(file, "{}", Self::PASSWORD).unwrap();
        path
    }

    /// Runs statements as the owner; the rows, fields parted by `|`.
    pub fn query(&self, database: &str, sql: &str) -> String {
        self.try_query(database, sql).unwrap()
    }

    fn try_query(&self, database: &str, sql: &str) -> Result<String, String> {
        let ran = Command::new(self.programs.join("psql"))
            .env_clear()
            .env("PGPASSWORD", OWNER_PASSWORD)
            .env("PGCONNECT_TIMEOUT", "5")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", OWNER])
            .args(["-d", database, "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        match ran.status.success() {
            true => Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where Debian puts the newest version's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs
                .join("initdb")
                .is_file()
                .then_some((version, programs))
        })
        .collect();
    found.sort();
    let newest = found.pop();
    newest
        .expect("Debian's package `postgresql` is not installed; scripts/test installs it")
        .1
}

/// A port of 127.0.0.1 that nobody has now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A Valkey server, or Redis where Debian has that. It writes every change to its
/// disk before it answers.
pub struct Valkey {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Valkey {
    /// Starts a server.
    ///
    /// # Panics
    /// Where neither of Debian's packages is installed.
    pub fn start() -> Self {
        let mut valkey = Self {
            folder: tempfile::Builder::new().prefix("vk").tempdir().unwrap(),
            port: free_port(),
            server: None,
        };
        valkey.start_again();
        valkey
    }

    /// Starts it where it was, and waits until it answers.
    pub fn start_again(&mut self) {
        let program = ["/usr/bin/valkey-server", "/usr/bin/redis-server"]
            .into_iter()
            .find(|path| Path::new(path).is_file())
            .expect("Debian's package `redis-server` is not installed; scripts/test installs it");
        let server = Command::new(program)
            .current_dir(self.folder.path())
            .env_clear()
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends it SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops it where it is: connections stay open and nobody answers.
    pub fn freeze(&self) {
        if let Some(server) = &self.server {
            signal(server.id(), Signal::STOP);
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command with a text for its answer; empty for none.
    pub fn ask(&self, words: &[&str]) -> String {
        use std::io::Read;
        let mut connection = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        command.push_str("*1\r\n$4\r\nQUIT\r\n");
        connection.write_all(command.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let mut lines = answer.lines();
        let first = lines.next().unwrap_or_default();
        match first.starts_with('$') && first != "$-1" {
            true => lines.next().unwrap_or_default().to_owned(),
            false => String::new(),
        }
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.kill();
    }
}
