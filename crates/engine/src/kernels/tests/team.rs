use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

#[test]
fn every_item_runs_once() {
    for threads in [0, 1, 2, 5] {
        let team = Team::new(threads);
        assert_eq!(team.threads(), threads.max(1));
        for items in [0, 1, 2, 7, 100, 1001] {
            for chunk in [0, 1, 3, 64, 5000] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.share(items, chunk, &|item| {
                    counts[item].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }
}

#[test]
fn many_small_jobs_lose_nothing() {
    let team = Team::new(4);
    let sum = AtomicUsize::new(0);
    for round in 0..20_000 {
        team.share(8, 1, &|item| {
            sum.fetch_add(item, Ordering::Relaxed);
        });
        // Now and then long enough for the workers to fall asleep.
        if round % 5000 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(sum.load(Ordering::Relaxed), 20_000 * 28);
}

#[test]
fn both_threads_take_part() {
    let team = Team::new(2);
    let barrier = std::sync::Barrier::new(2);
    // Two items that wait for each other: one thread alone would hang here.
    team.share(2, 1, &|_| {
        barrier.wait();
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_team_goes_on() {
    let team = Team::new(3);
    for bad in [0, 50, 99] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.share(100, 1, &|item| assert!(item != bad, "item {item}"));
        }));
        let payload = result.unwrap_err();
        assert_eq!(
            payload.downcast_ref::<String>().unwrap(),
            &format!("item {bad}")
        );
        let count = AtomicUsize::new(0);
        team.share(100, 1, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn a_job_within_a_job_runs_in_place() {
    let team = Team::new(2);
    let count = AtomicUsize::new(0);
    team.share(4, 1, &|_| {
        let outer = std::thread::current().id();
        team.share(10, 1, &|_| {
            assert_eq!(std::thread::current().id(), outer);
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.load(Ordering::Relaxed), 40);
}

#[test]
fn several_callers_take_turns() {
    let team = Team::new(2);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    team.share(10, 1, &|_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 20_000);
}

/// Processor time of this process's thread `id`, in clock ticks.
#[cfg(target_os = "linux")]
fn ticks(id: &std::path::Path) -> u64 {
    let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(id).join("stat"));
    let stat = stat.unwrap();
    let (_, tail) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = tail.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Workers sleep when nothing comes: at most a single tick of 10 ms in a second.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_team_sleeps() {
    let team = Team::new(4);
    let caller = std::fs::read_link("/proc/thread-self").unwrap();
    let barrier = std::sync::Barrier::new(4);
    let members = std::sync::Mutex::new(Vec::new());
    // Four items that wait for each other: each thread takes one.
    team.share(4, 1, &|_| {
        let id = std::fs::read_link("/proc/thread-self").unwrap();
        members.lock().unwrap().push(id);
        barrier.wait();
    });
    let mut workers = members.into_inner().unwrap();
    workers.retain(|id| *id != caller);
    assert_eq!(workers.len(), 3);
    std::thread::sleep(Duration::from_millis(200));
    let before: Vec<u64> = workers.iter().map(|id| ticks(id)).collect();
    std::thread::sleep(Duration::from_secs(1));
    for (id, before) in workers.iter().zip(before) {
        assert!(ticks(id) - before <= 1, "an idle worker keeps a core busy");
    }
}
