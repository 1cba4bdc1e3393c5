//! The fleet's ledger in a real Postgres: every row arrives exactly once,
//! whatever is killed on the way, and no answer waits for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nearfar::supervisor::Role;
use serde_json::Value;

use super::support::daemon::{Daemon, DaemonOptions};
use super::support::double::Double;
use super::support::servers::Postgres;
use super::support::{root, runtime};

const BODY: &str = r#"{"model":"p/m","messages":[{"role":"user","content":"do not tell"}]}"#;

/// A provider that answers at once, for as long as it is held.
struct Provider {
    double: Double,
    _runtime: tokio::runtime::Runtime,
}

fn provider() -> Provider {
    let runtime = runtime();
    let double = runtime.block_on(Double::start());
    double.always_repeats();
    Provider {
        double,
        _runtime: runtime,
    }
}

impl Provider {
    fn config(&self, ledger: &str) -> String {
        format!(
            "{ledger}\n[providers.p]\nbase_url = \"{}\"\nzone = \"site\"\n\
             [[providers.p.models]]\nname = \"m\"\n",
            self.double.openai_base()
        )
    }
}

fn ask(daemon: &Daemon) {
    let (status, body) = daemon.post("/v1/chat/completions", BODY);
    assert_eq!(status, 200, "{body}\n{}", daemon.log());
}

fn fleet_state(daemon: &Daemon) -> Value {
    let (_, body) = daemon.control("/admin/v1/status");
    let status: Value = serde_json::from_str(&body).unwrap_or_default();
    status["fleet_ledger"].clone()
}

/// Waits until the fleet's ledger has every row of this daemon's.
fn wait_sent(daemon: &Daemon) {
    // Asking for the usage writes what is queued.
    daemon.control("/admin/v1/usage");
    daemon.until("all rows sent", || {
        let state = fleet_state(daemon);
        (state["behind_rows"] == 0 && state["error"].is_null() && !state["last_sent_ms"].is_null())
            .then_some(())
    });
}

/// Ids and decisions of the device's own ledger.
fn own_rows(state_dir: &Path) -> BTreeSet<String> {
    let ledger = rusqlite::Connection::open(state_dir.join("ledger.sqlite")).unwrap();
    let mut select = ledger
        .prepare("SELECT id || '|' || decision || '|' || time_ms FROM requests")
        .unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The same of the fleet's, as often as they are there.
fn fleet_rows(postgres: &Postgres) -> Vec<String> {
    let rows = postgres.query(
        "fleet",
        "SELECT id, decision, time_ms FROM nearfar_requests",
    );
    rows.lines().map(str::to_owned).collect()
}

#[test]
fn every_row_arrives_once_whatever_is_killed_and_no_answer_waits() {
    let mut postgres = Postgres::start();
    postgres.query("fleet", "GRANT CREATE ON SCHEMA public TO nearfar");
    let folder = tempfile::tempdir().unwrap();
    let password = Postgres::password_file(folder.path());
    let provider = provider();
    let config = provider.config(&format!(
        "[fleet_ledger]\nurl = \"postgres://nearfar@{}/fleet?sslmode=require\"\n\
         password_file = \"{}\"\ndevice = \"kiosk-17\"\n",
        postgres.address(),
        password.display()
    ));
    let authority = root().join("tests/support/tls/authority.pem");
    let daemon = Daemon::start(
        DaemonOptions::default()
            .config(&config)
            .env("SSL_CERT_FILE", authority.to_str().unwrap()),
    );
    daemon.wait_ready();
    ask(&daemon);
    wait_sent(&daemon);

    let over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // The gate is killed below: then there is no answer at all.
                    let reply = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        daemon.post("/v1/chat/completions", BODY).0
                    }));
                    if reply.is_ok_and(|status| status == 200) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let more_answers = |what: &str| {
            let before = answered.load(Ordering::Relaxed);
            daemon.until(what, || {
                (answered.load(Ordering::Relaxed) >= before + 20).then_some(())
            });
        };
        let failing = || {
            daemon.until("an alarm", || {
                (!fleet_state(&daemon)["error"].is_null()).then_some(())
            });
        };
        more_answers("answers while all is well");
        postgres.kill();
        more_answers("answers without Postgres");
        failing();
        let (_, metrics) = daemon.get("/metrics");
        assert!(metrics.contains("nearfar_ledger_export_up 0"), "{metrics}");
        postgres.start_again();
        more_answers("answers after Postgres came back");
        daemon.kill(Role::Gate);
        more_answers("answers of the next gate");
        daemon.kill(Role::Egress);
        more_answers("answers of the next egress");
        wait_until_sent_once(&daemon);
        postgres.freeze();
        more_answers("answers while Postgres hangs");
        postgres.kill();
        postgres.start_again();
        more_answers("answers at the end");
        over.store(true, Ordering::Relaxed);
    });
    wait_sent(&daemon);

    let own = own_rows(daemon.state_dir());
    let fleet = fleet_rows(&postgres);
    assert_eq!(fleet.len(), own.len(), "{}", daemon.log());
    assert_eq!(fleet.into_iter().collect::<BTreeSet<_>>(), own);
    let devices = postgres.query(
        "fleet",
        "SELECT DISTINCT device, target FROM nearfar_requests",
    );
    assert!(
        devices.lines().any(|line| line == "kiosk-17|p/m"),
        "{devices}"
    );
    for secret in [Postgres::PASSWORD, "do not tell"] {
        assert!(!daemon.log().contains(secret));
        assert!(!daemon.get("/metrics").1.contains(secret));
        assert!(!daemon.control("/admin/v1/status").1.contains(secret));
    }
}

/// Waits until the gate of the moment has sent something.
fn wait_until_sent_once(daemon: &Daemon) {
    daemon.until("a batch of the new gate", || {
        let state = fleet_state(daemon);
        (state["sent_rows"].as_u64().unwrap_or(0) > 0 && state["error"].is_null()).then_some(())
    });
}

#[test]
fn a_copied_disk_loses_no_row_and_a_role_without_rights_is_told_what_to_do() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let password = Postgres::password_file(folder.path());
    let provider = provider();
    let socket = postgres.socket_folder().display().to_string();
    let config = provider.config(&format!(
        "[fleet_ledger]\nurl = \"postgres://nearfar@{}:{}/fleet\"\npassword_file = \"{}\"\n",
        socket.replace('/', "%2F"),
        postgres.address().trim_start_matches("localhost:"),
        password.display()
    ));
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let start = |state_dir: &Path| {
        let daemon = Daemon::start(DaemonOptions {
            state_dir: Some(state_dir.to_owned()),
            ..DaemonOptions::default().config(&config)
        });
        daemon.wait_ready();
        daemon
    };
    let daemon = start(&first);
    (0..3).for_each(|_| ask(&daemon));
    let error = daemon.until("a refusal", || {
        fleet_state(&daemon)["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("nearfar config fleet-ledger-sql"), "{error}");
    postgres.query("fleet", nearfar_egress::LEDGER_SQL);
    postgres.query(
        "fleet",
        "GRANT SELECT, INSERT ON nearfar_requests, nearfar_failed_legs TO nearfar;
         GRANT SELECT ON nearfar_schema TO nearfar",
    );
    wait_sent(&daemon);
    daemon.stop();

    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&first, &second])
        .status();
    assert!(copied.unwrap().success());
    let (one, other) = (start(&first), start(&second));
    (0..2).for_each(|_| ask(&one));
    wait_sent(&one);
    (0..4).for_each(|_| ask(&other));
    wait_sent(&other);
    assert_eq!(fleet_rows(&postgres).len(), 3 + 2 + 4);
    let all: BTreeSet<String> = own_rows(&first)
        .union(&own_rows(&second))
        .cloned()
        .collect();
    assert_eq!(
        fleet_rows(&postgres).into_iter().collect::<BTreeSet<_>>(),
        all
    );
    let names = postgres.query(
        "fleet",
        "SELECT count(DISTINCT daemon) FROM nearfar_requests",
    );
    assert_eq!(names, "2");
}
