//! Downloads from the provider double, over real sockets.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use nearfar_domain::frames::FromEgress;
use nearfar_domain::ids::JobId;
use tokio::sync::mpsc;

use super::*;
use double::{Double, Fault};

#[path = "../../../../tests/support/double.rs"]
mod double;

const REPO: &str = "owner/model";
const SHA_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

struct Rig {
    double: Double,
    folder: tempfile::TempDir,
    token: Option<SecretString>,
}

impl Rig {
    async fn start() -> Rig {
        Rig {
            double: Double::start().await,
            folder: tempfile::tempdir().unwrap(),
            token: None,
        }
    }

    fn download(&self, file: &str) -> Download {
        Download {
            job: JobId(1),
            repo: REPO.into(),
            revision: "main".into(),
            file: file.into(),
            into: self.folder.path().to_str().unwrap().into(),
            save_as: "model.gguf".into(),
            sha256: None,
            max_bytes: 1 << 24,
        }
    }

    async fn run(&self, download: Download) -> Vec<DownloadEvent> {
        let downloads = Downloads::from(
            self.double.hf_endpoint(),
            self.token.clone(),
            self.folder.path().to_owned(),
        );
        let (frames, mut seen) = mpsc::channel(1 << 12);
        let emit = Emitter::new(download.job, frames);
        downloads
            .run(download, &emit, CancellationToken::new())
            .await;
        drop(emit);
        let mut events = Vec::new();
        while let Some(frame) = seen.recv().await {
            if let FromEgress::Download { event, .. } = frame {
                events.push(event);
            }
        }
        events
    }

    fn saved(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("model.gguf")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

fn failed(events: &[DownloadEvent]) -> (&str, bool) {
    match events.last() {
        Some(DownloadEvent::Failed { message, retryable }) => (message, *retryable),
        other => panic!("not a failure: {other:?}"),
    }
}

fn finished(events: &[DownloadEvent]) -> (&str, u64, bool) {
    match events.last() {
        Some(DownloadEvent::Finished {
            sha256,
            bytes,
            verified,
        }) => (sha256, *bytes, *verified),
        other => panic!("not finished: {other:?}"),
    }
}

#[tokio::test]
async fn a_large_file_comes_through_its_redirect_and_is_verified() {
    let rig = Rig::start().await;
    let content = bytes(300_000);
    rig.double
        .add_file(REPO, "main", "q8 0.gguf", content.clone(), true);
    let events = rig.run(rig.download("q8 0.gguf")).await;
    let (_, length, verified) = finished(&events);
    assert_eq!((length, verified), (300_000, true));
    assert_eq!(rig.saved(), content);
    assert_eq!(rig.names(), ["model.gguf"], "nothing else stays");
    let first = &events[0];
    assert!(
        matches!(
            first,
            DownloadEvent::Progress {
                have: 0,
                total: Some(300_000)
            }
        ),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_small_file_is_pinned_and_a_named_digest_is_checked() {
    let rig = Rig::start().await;
    rig.double
        .add_file(REPO, "main", "a.txt", b"abc".to_vec(), false);
    let events = rig.run(rig.download("a.txt")).await;
    assert_eq!(finished(&events), (SHA_OF_ABC, 3, false));
    let mut named = rig.download("a.txt");
    named.sha256 = Some(SHA_OF_ABC.to_uppercase());
    assert_eq!(finished(&rig.run(named).await), (SHA_OF_ABC, 3, true));
    let mut wrong = rig.download("a.txt");
    wrong.save_as = "other".into();
    wrong.sha256 = Some("0".repeat(64));
    let events = rig.run(wrong).await;
    let (message, retryable) = failed(&events);
    assert!(message.contains(SHA_OF_ABC) && !retryable, "{message}");
    assert_eq!(rig.names(), ["model.gguf"], "the wrong file is gone");
}

#[tokio::test]
async fn a_pin_that_the_server_contradicts_costs_no_transfer() {
    let rig = Rig::start().await;
    rig.double
        .add_file(REPO, "main", "m.gguf", bytes(100_000), true);
    let mut download = rig.download("m.gguf");
    download.sha256 = Some("0".repeat(64));
    let events = rig.run(download).await;
    assert!(failed(&events).0.contains("another file"), "{events:?}");
    assert!(!rig.names().contains(&"model.gguf".to_owned()));
}

#[tokio::test]
async fn a_transfer_that_breaks_is_resumed_where_it_broke() {
    let rig = Rig::start().await;
    let content = bytes(2_000_000);
    rig.double
        .add_file(REPO, "main", "m.gguf", content.clone(), true);
    rig.double.push(Fault::None);
    rig.double.push(Fault::CutFile {
        after_bytes: 700_000,
    });
    rig.double.push(Fault::None);
    rig.double.push(Fault::CutFile {
        after_bytes: 500_000,
    });
    let events = rig.run(rig.download("m.gguf")).await;
    assert!(finished(&events).2);
    assert_eq!(rig.saved(), content);
    let ranges: Vec<String> = rig
        .double
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/cdn/"))
        .map(|request| request.header("range").unwrap_or("none").to_owned())
        .collect();
    assert_eq!(ranges[0], "none");
    assert_eq!(ranges[1..], ["bytes=700000-", "bytes=1200000-"]);
}

#[tokio::test]
async fn another_call_goes_on_and_another_version_begins_anew() {
    let rig = Rig::start().await;
    let content = bytes(900_000);
    rig.double
        .add_file(REPO, "main", "m.gguf", content.clone(), true);
    for _ in 0..4 {
        rig.double.push(Fault::None);
        rig.double.push(Fault::ResetBeforeHeaders);
    }
    // The first try gets a part, the next ones nothing.
    rig.double.push(Fault::None);
    let part = rig.folder.path().join("model.gguf.part");
    let events = rig.run(rig.download("m.gguf")).await;
    assert!(failed(&events).1, "may be tried again");
    std::fs::write(&part, &content[..400_000]).unwrap();
    let digest = {
        let shared = Arc::new(content.clone());
        use sha2::Digest;
        let hash = sha2::Sha256::digest(shared.as_slice());
        hash.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let mark = rig.folder.path().join("model.gguf.part.version");
    std::fs::write(&mark, &digest).unwrap();
    let before = rig.double.requests().len();
    assert!(finished(&rig.run(rig.download("m.gguf")).await).2);
    assert_eq!(rig.saved(), content);
    assert_eq!(
        rig.double.requests()[before].header("range"),
        Some("bytes=400000-")
    );

    std::fs::write(&part, b"of an older version").unwrap();
    std::fs::write(&mark, "older").unwrap();
    assert!(finished(&rig.run(rig.download("m.gguf")).await).2);
    assert_eq!(rig.saved(), content);

    // Whole already, but not yet named.
    std::fs::write(&part, &content).unwrap();
    std::fs::write(&mark, &digest).unwrap();
    assert!(finished(&rig.run(rig.download("m.gguf")).await).2);
    assert_eq!(rig.saved(), content);
}

#[tokio::test]
async fn what_is_too_long_is_not_fetched() {
    let rig = Rig::start().await;
    rig.double
        .add_file(REPO, "main", "m.gguf", bytes(100_000), true);
    let mut download = rig.download("m.gguf");
    download.max_bytes = 99_999;
    let events = rig.run(download).await;
    assert!(failed(&events).0.contains("100000 bytes"), "{events:?}");
    assert!(!rig.names().contains(&"model.gguf".to_owned()));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let mut rig = Rig::start().await;
    rig.double.add_file(REPO, "main", "m.gguf", bytes(10), true);
    let missing = rig.run(rig.download("no.gguf")).await;
    assert!(
        failed(&missing).0.contains("no file no.gguf"),
        "{missing:?}"
    );
    let mut elsewhere = rig.download("m.gguf");
    elsewhere.repo = "nobody/nothing".into();
    let elsewhere = rig.run(elsewhere).await;
    assert!(
        failed(&elsewhere).0.contains("no repository"),
        "{elsewhere:?}"
    );

    rig.double.gate(REPO, "hf_right");
    let gated = rig.run(rig.download("m.gguf")).await;
    assert!(
        failed(&gated).0.contains("set a token: HF_TOKEN"),
        "{gated:?}"
    );
    rig.token = Some(SecretString::from("hf_wrong"));
    let gated = rig.run(rig.download("m.gguf")).await;
    assert!(failed(&gated).0.contains("has no right"), "{gated:?}");
    assert!(!failed(&gated).0.contains("hf_wrong"));
    rig.token = Some(SecretString::from("hf_right"));
    assert!(finished(&rig.run(rig.download("m.gguf")).await).2);
}

#[tokio::test]
async fn only_the_incoming_folder_may_be_written() {
    let rig = Rig::start().await;
    let mut download = rig.download("m.gguf");
    let other = tempfile::tempdir().unwrap();
    download.into = other.path().to_str().unwrap().into();
    let events = rig.run(download).await;
    assert!(failed(&events).0.contains("may only go to"), "{events:?}");
    assert!(rig.double.requests().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn a_cancelled_download_ends_at_once_and_keeps_its_part() {
    let rig = Rig::start().await;
    rig.double
        .add_file(REPO, "main", "m.gguf", bytes(100), true);
    rig.double.push(Fault::None);
    rig.double.push(Fault::StallBeforeBody);
    let downloads = Downloads::from(rig.double.hf_endpoint(), None, rig.folder.path().to_owned());
    let (frames, mut seen) = mpsc::channel(16);
    let emit = Emitter::new(JobId(1), frames);
    let token = CancellationToken::new();
    let running = downloads.run(rig.download("m.gguf"), &emit, token.clone());
    let cancelling = async {
        rig.double
            .wait_until("the stalled request", |d| d.requests().len() == 2)
            .await;
        token.cancel();
    };
    tokio::join!(running, cancelling);
    drop(emit);
    let mut last = None;
    while let Some(FromEgress::Download { event, .. }) = seen.recv().await {
        last = Some(event);
    }
    assert!(
        matches!(&last, Some(DownloadEvent::Failed { message, retryable: true }) if message.contains("cancelled")),
        "{last:?}"
    );
    rig.double
        .wait_until("the closed connection", |d| d.requests()[1].closed_early)
        .await;
}
