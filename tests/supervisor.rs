//! The supervisor with its real processes: restarts, drain, what each may see.

use nearfar::supervisor::Role;
use rustix::process::Signal;

use super::support::daemon::{Daemon, DaemonOptions, children, is_running, signal};

/// Written nowhere else, so that finding it is finding the key.
const KEY: &str = "sk-canary-2f9c1e";

fn environment(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn every_process_comes_back_after_a_kill_and_the_others_stay() {
    let daemon = Daemon::start(DaemonOptions::default());
    assert_eq!(daemon.get("/healthz").0, 200);
    for role in Role::ALL {
        let others: Vec<(Role, u32)> = Role::ALL
            .into_iter()
            .filter(|other| *other != role)
            .map(|other| (other, daemon.wait_for(other, None)))
            .collect();
        let killed = daemon.wait_for(role, None);
        assert_ne!(daemon.kill(role), killed);
        for (other, pid) in others {
            assert_eq!(daemon.pid_of(other), Some(pid), "{other} after {role}");
        }
        // The listener outlives the gate: the same address answers.
        assert_eq!(daemon.get("/healthz").0, 200, "after {role}");
    }
    daemon.wait_ready();
}

#[test]
fn a_stop_is_orderly_and_leaves_nobody_behind() {
    for stop in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(DaemonOptions::default());
        assert_eq!(daemon.get("/healthz").0, 200);
        let family = children(daemon.pid());
        assert_eq!(family.len(), 3);
        signal(daemon.pid(), stop);
        assert!(daemon.wait().success(), "{}", daemon.log());
        for (pid, arguments) in family {
            assert!(!is_running(pid), "{arguments:?}");
        }
    }
}

#[test]
fn a_killed_supervisor_takes_its_processes_along() {
    let mut daemon = Daemon::start(DaemonOptions::default());
    assert_eq!(daemon.get("/healthz").0, 200);
    let family = children(daemon.pid());
    assert_eq!(family.len(), 3);
    signal(daemon.pid(), Signal::KILL);
    daemon.wait();
    for (pid, arguments) in family {
        let gone = || (!is_running(pid)).then_some(());
        daemon.until(&format!("the end of {arguments:?}"), gone);
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start(DaemonOptions::default());
    let second = DaemonOptions {
        state_dir: Some(daemon.state_dir().to_owned()),
        ..DaemonOptions::default()
    };
    let said = Daemon::try_start(second).err().unwrap();
    assert!(said.contains("exit status: 1"), "{said}");
    assert!(said.contains("another nearfar"), "{said}");
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.control("/healthz").0, 200);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_mend() {
    let elsewhere = DaemonOptions {
        listen: vec!["0.0.0.0:0".to_owned()],
        ..DaemonOptions::default()
    };
    let said = Daemon::try_start(elsewhere).err().unwrap();
    assert!(said.contains("127.0.0.1 or [::1]"), "{said}");
    let daemon = Daemon::start(DaemonOptions::default());
    let taken = DaemonOptions {
        listen: vec![daemon.address().to_string()],
        ..DaemonOptions::default()
    };
    let said = Daemon::try_start(taken).err().unwrap();
    assert!(said.contains("--listen"), "{said}");
    let wrong = DaemonOptions::default().config("[server]\nlisten = 7\n");
    let said = Daemon::try_start(wrong).err().unwrap();
    assert!(said.contains("nearfar.toml:2"), "{said}");
}

#[test]
fn keys_reach_egress_alone() {
    let options = DaemonOptions::default()
        .env("OPENAI_API_KEY", KEY)
        .env("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    let daemon = Daemon::start(options);
    assert_eq!(daemon.get("/healthz").0, 200);
    for restarted in [false, true] {
        if restarted {
            for role in Role::ALL {
                daemon.kill(role);
            }
            daemon.wait_ready();
        }
        // The positive control. An ordinary user cannot look, which is the point.
        if is_root() {
            let egress = environment(daemon.wait_for(Role::Egress, None));
            assert!(egress.contains(KEY));
            for role in [Role::Gate, Role::Engine] {
                let seen = environment(daemon.wait_for(role, None));
                assert!(seen.contains("HOME="), "{role}");
                assert!(!seen.contains(KEY), "{role}");
                assert!(!seen.contains("OPENAI"), "{role}");
            }
        }
    }
    let log = daemon.log();
    assert!(log.contains("credentials directory is the way"), "{log}");
    assert!(!log.contains(KEY));
}

#[test]
fn what_is_in_force_is_what_is_reported() {
    let offer = nearfar::supervisor::sandbox::probe();
    let daemon = Daemon::start(DaemonOptions::default());
    daemon.wait_ready();
    for role in Role::ALL {
        let pid = daemon.wait_for(role, None);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{role}");
        assert_eq!(field("Seccomp:") == "2", offer.seccomp, "{role}");
        // No power of root's but reading files, and for the gate not that.
        let powers = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
        let read_only = 1 << 2;
        assert_eq!(powers & !read_only, 0, "{role}: {powers:#x}");
    }
    let (_, body) = daemon.get("/readyz");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let sandbox = body["sandbox"].as_array().unwrap();
    assert_eq!(sandbox.len(), 3, "{body}");
    for report in sandbox {
        assert_eq!(report["seccomp"], offer.seccomp, "{body}");
        assert_eq!(
            report["landlock_abi"].as_u64(),
            offer.landlock_abi.map(u64::from),
            "{body}"
        );
    }
}

#[test]
fn a_role_is_not_to_be_started_by_hand() {
    for role in Role::ALL {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_nearfar"))
            .arg(role.name())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{role}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("nearfar serve"), "{said}");
    }
}

#[test]
fn the_service_manager_hears_of_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    // A daemon that says nothing must fail the test, not hang it.
    let patience = std::time::Duration::from_secs(60);
    manager.set_read_timeout(Some(patience)).unwrap();
    let hear = || {
        let mut said = [0; 256];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    let options = DaemonOptions::default().env("NOTIFY_SOCKET", path.to_str().unwrap());
    let daemon = Daemon::start(options);
    assert!(hear().contains("READY=1"));
    assert_eq!(daemon.get("/healthz").0, 200);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(hear().contains("STOPPING=1"));
}

#[test]
fn a_second_signal_ends_at_once_what_does_not_drain() {
    let mut daemon = Daemon::start(DaemonOptions::default().config("[server]\ndrain = \"60s\"\n"));
    daemon.wait_ready();
    let gate = daemon.wait_for(Role::Gate, None);
    // It can hear no drain now.
    signal(gate, Signal::STOP);
    signal(daemon.pid(), Signal::TERM);
    daemon.wait_for_log("stopping");
    assert!(is_running(gate));
    signal(daemon.pid(), Signal::TERM);
    assert!(!daemon.wait().success(), "{}", daemon.log());
    assert!(daemon.log().contains("stopping at once"));
    assert!(!is_running(gate));
}
